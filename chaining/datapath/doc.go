// Package datapath forwards chains in the kernel, by TC programs. The programs
// stand in bpf/, their compiled form is committed.
package datapath

//go:generate ./bpf/generate chain bpf/chain.c
//go:generate ./bpf/generate guard bpf/guard.c
//go:generate ./bpf/generate redirect bpf/redirect.c
//go:generate ./bpf/generate spike bpf/spike.c -tags root -output-suffix _test
//go:generate ./bpf/generate tags bpf/tags.c -tags root -output-suffix _test
