// Package admin answers an operator's questions about one node over HTTP: is it
// alive and ready, what does it serve and since when, where does load go and
// why, and what does it cost. It only reads; nothing here changes the node.
//
// It is reachable from this machine alone unless the operator says otherwise: it
// shows configuration and memory, and asks nobody who they are.
package admin
