// Package budget keeps the daily budgets of a site's links: what was carried today, what
// is left for each of the site's proxies, and what using a link costs as it runs out.
//
// Proxies count bytes; what one may still carry is granted to it as a reading of its own
// counter ([mesh.LinkGrant]). All grants together never go beyond the budget: one that is
// made smaller counts at its old size until its node says that it has the new one. So
// reports and plans may be lost, late or repeated, and a controller may start anew from an
// old record, and still no more is carried than the budget, what is under way when it ends,
// and what a proxy that died had not reported.
//
// The price of a link is the scarcity of what is left: nothing while at least as large a
// part of the budget is left as of the day, and growing beyond all bounds as it runs out.
//
// The package is pure. A [Book] belongs to one goroutine.
package budget
