// Package placement compares rules that place services on nodes: Kubernetes'
// default spreading, NetMARKS, Diktyo's NetworkOverhead, TraDE's greedy algorithm,
// ours (pod by pod as the scheduler plugin does, and all at once), and simulated
// annealing as the reference.
//
// All rules see the same [Case]: services with a measured or generated call graph,
// nodes with delays and capacities, and an order in which pods come. The rules of
// others follow their papers and published code as far as those say. The package
// is pure; a case is made from a seed, and a rule's placement from the case.
package placement
