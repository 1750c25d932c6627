// Package agent runs the chains of one node: it turns documents into a plan, the
// plan into this node's table, and the table into what chaining/datapath forwards
// by; it watches the node's function instances and moves flows away from those that
// fail.
//
//	documents, health --plan.go (pure)--> views --path.Compile--> table --datapath--> kernel
//
// The kernel goes on when the agent ends, and the next agent takes over. [Agent.Run]
// owns all goroutines.
package agent
