// Package scenario reads the simulator's scenario files and builds what they
// describe: the network (a ring, a line, a list of sites, a made city or backbone,
// the base stations of the EUA data sets, an operator's network in GML), demands,
// users who move, and what happens when. The shipped files are embedded.
package scenario
