// Package policy holds the rules that testbed/sim compares: the product's own
// decision code, run whole ([Meridian]), the published and shipped rules of others,
// the exact optimum's static weights, and a rule that knows everything at once.
//
// The others' rules are written from their published formulas, with the constants
// published with them; where a rule needs what a report says, it gets the same
// estimates as the product, as late. [New] makes a policy by name.
package policy
