package mesh

// SlotsLearned says how the slots of a site are known. A report for each service of
// each site holds one, so it is small.
type SlotsLearned uint8

// Declared slots are what the configuration says. Of others a lower bound is all that is
// known until the site was seen saturated, and settled is what they are since.
const (
	SlotsDeclared SlotsLearned = iota
	SlotsLowerBound
	SlotsSettled
)

var slotsLearned = [...]string{"", "lower-bound", "settled"}

// String is the word that stands for it in messages, empty for declared slots.
func (l SlotsLearned) String() string {
	if int(l) < len(slotsLearned) {
		return slotsLearned[l]
	}
	return ""
}

// MarshalText writes the word.
func (l SlotsLearned) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads it. A word of a later build says nothing to this one, and is
// taken for none, as a build without the field takes every word.
func (l *SlotsLearned) UnmarshalText(text []byte) error {
	*l = SlotsDeclared
	for i, word := range slotsLearned {
		if string(text) == word {
			*l = SlotsLearned(i)
		}
	}
	return nil
}
