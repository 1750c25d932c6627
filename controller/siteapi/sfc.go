package siteapi

import "encoding/json"

// PathSFC is where application functions set AfSfcRequirements, on a listener of their
// own: PathSFC/{namespace}/{name}.
const PathSFC = "/sfc/v1/requirements"

// SFCRequirement is a requirement as its endpoint shows it.
type SFCRequirement struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Request is what was asked.
	Request json.RawMessage `json:"request"`
	// Conditions are why it is not in force, or not all of it; none where it is.
	Conditions []SFCCondition `json:"conditions"`
}

// SFCCondition is something that keeps a requirement from being in force.
type SFCCondition struct {
	Param   string `json:"param"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// SFCList are all requirements.
type SFCList struct {
	Requirements []SFCRequirement `json:"requirements"`
}
