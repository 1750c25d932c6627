// Package compare runs policies of testbed/sim side by side over seeds and says how
// far each is from the exact optimum's static weights in the same simulator, and
// whether the product keeps its bars. Results are values; [Result.Table],
// [Result.CSV] and [Result.HTML] write them.
package compare
