package mesh

import (
	"encoding/json"
	"strings"
	"testing"
)

// Declared slots say nothing of it, learned ones a word, and a later build's word is
// read as none.
func TestSlotsLearned(t *testing.T) {
	for want, l := range map[string]SlotsLearned{"": SlotsDeclared, `"learned":"lower-bound"`: SlotsLowerBound, `"learned":"settled"`: SlotsSettled} {
		data, err := json.Marshal(&ServiceReport{Service: "default/echo", Learned: l})
		if err != nil || !strings.Contains(string(data), want) || want == "" && strings.Contains(string(data), "learned") {
			t.Errorf("%v: %s, %v", l, data, err)
		}
		var r ServiceReport
		if err := json.Unmarshal(data, &r); err != nil || r.Learned != l {
			t.Errorf("%s is read as %v, %v", data, r.Learned, err)
		}
	}
	r := ServiceReport{Learned: SlotsSettled}
	if err := json.Unmarshal([]byte(`{"slots":3,"learned":"guessed"}`), &r); err != nil || r.Learned != SlotsDeclared || r.Slots != 3 {
		t.Errorf("%+v, %v", r, err)
	}
}
