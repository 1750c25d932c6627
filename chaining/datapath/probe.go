package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
)

// Missing lists what this kernel, or this process, lacks for the datapath, each
// with its remedy. It is empty where the datapath can run.
func Missing() []string {
	var missing []string
	need := func(err error, what string) {
		switch {
		case err == nil:
		case errors.Is(err, ebpf.ErrNotSupported):
			missing = append(missing, what)
		default:
			missing = append(missing, fmt.Sprintf("%s: %v", what, err))
		}
	}
	need(features.HaveProgramType(ebpf.SchedCLS), "TC programs (CAP_BPF and CAP_NET_ADMIN, CONFIG_NET_CLS_BPF)")
	if len(missing) > 0 {
		return missing
	}
	need(features.HaveMapType(ebpf.LRUHash), "LRU maps (Linux 4.10)")
	for _, h := range []struct {
		fn   asm.BuiltinFunc
		what string
	}{
		{asm.FnSkbAdjustRoom, "bpf_skb_adjust_room (Linux 4.13)"},
		{asm.FnSkbChangeHead, "bpf_skb_change_head (Linux 4.10)"},
		{asm.FnFibLookup, "bpf_fib_lookup (Linux 4.18)"},
		{asm.FnRedirectNeigh, "bpf_redirect_neigh (Linux 5.10)"},
		{asm.FnLoop, "bpf_loop (Linux 5.17)"},
	} {
		need(features.HaveProgramHelper(ebpf.SchedCLS, h.fn), h.what)
	}
	return missing
}

// haveTCX tells whether programs can be attached by links (Linux 6.6). The way
// to know is to ask for what is not there: a kernel without TCX does not know the
// question.
func haveTCX() error {
	_, err := link.QueryPrograms(link.QueryOptions{Target: 1, Attach: ebpf.AttachTCXIngress})
	return err
}
