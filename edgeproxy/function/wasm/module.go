// Package wasm runs functions that are WebAssembly modules with the handler ABI of
// http-wasm (https://http-wasm.io/http-handler-abi), on wazero. Every event loop has an
// instance of its own, made off the loop; calls run in the loop, under a budget of time
// and memory. One that overruns or traps is killed and made anew, three times; then it
// is left alone until its document or its file changes.
//
// Modules see and change heads: fields, and the whole of an answer of their own. Bodies
// of requests and responses pass by, and method and target, which routes have judged,
// stay as they are: a module that asks for them traps.
package wasm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/function"
)

const (
	// mostKills is how often an instance is killed before it is not made anew.
	mostKills = 3
	// restAfter is how long the watchdog looks on after the last call.
	restAfter = 100 * time.Millisecond
	pageBytes = 64 << 10
	// leastTick and mostTick bound how often calls are looked at.
	leastTick, mostTick = 250 * time.Microsecond, 2500 * time.Microsecond
)

// Loader makes modules. It may be used from any goroutine.
type Loader struct {
	Log *slog.Logger
	// Now is the clock of the loops.
	Now func() int64
}

var _ function.Modules = (*Loader)(nil)

// stamp tells a file from what it was before.
type stamp struct {
	size int64
	at   time.Time
}

func stampOf(path string) (stamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}, err
	}
	return stamp{info.Size(), info.ModTime()}, nil
}

// Module is a function.
type Module struct {
	loader  *Loader
	key     string
	spec    *mesh.WasmFunction
	stamp   stamp
	refused atomic.Pointer[stamp] // of a newer file that cannot be served
	budget  int64
	runtime wazero.Runtime
	code    wazero.CompiledModule
	loops   []atomic.Pointer[instance]
	kills   atomic.Int32

	watching atomic.Bool
	wake     chan struct{}
	dead     chan *instance // to be closed, which is nothing for a loop
	stop     context.CancelFunc
	ended    chan struct{}
}

// Load compiles a module and makes an instance for each loop.
func (l *Loader) Load(key string, spec *mesh.WasmFunction, loops int) (function.Function, error) {
	at, err := stampOf(spec.File)
	if err != nil {
		return nil, fmt.Errorf("wasm.file: %w", err)
	}
	data, err := os.ReadFile(spec.File)
	if err != nil {
		return nil, fmt.Errorf("wasm.file: %w", err)
	}
	budget := mesh.DefaultWasmBudget
	if spec.Budget != nil {
		budget = spec.Budget.D()
	}
	memory := spec.MemoryMiB
	if memory == 0 {
		memory = mesh.DefaultWasmMemoryMiB
	}
	ctx, stop := context.WithCancel(context.Background())
	m := &Module{
		loader: l, key: key, spec: spec, stamp: at, budget: int64(budget), loops: make([]atomic.Pointer[instance], loops),
		wake: make(chan struct{}, 1), dead: make(chan *instance, loops+mostKills+1), stop: stop, ended: make(chan struct{}),
		runtime: wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCloseOnContextDone(true).WithMemoryLimitPages(uint32(memory<<20/pageBytes))),
	}
	if err := m.begin(ctx, data); err != nil {
		stop()
		return nil, errors.Join(fmt.Errorf("wasm.file %s: %w", spec.File, err), m.runtime.Close(context.Background()))
	}
	go m.watch(ctx)
	return m, nil
}

func (m *Module) begin(ctx context.Context, data []byte) error {
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, m.runtime); err != nil {
		return err
	}
	if err := hostModule(ctx, m.runtime); err != nil {
		return err
	}
	var err error
	if m.code, err = m.runtime.CompileModule(ctx, data); err != nil {
		return err
	}
	for i := range m.loops {
		in, err := m.instance(ctx)
		if err != nil {
			return err
		}
		m.loops[i].Store(in)
	}
	return nil
}

// instance makes one. A module may take as long as it likes to begin, but not for ever.
func (m *Module) instance(parent context.Context) (*instance, error) {
	in := &instance{m: m}
	ctx, cancel := context.WithCancel(context.WithValue(parent, instanceKey{}, in))
	in.ctx, in.cancel = ctx, cancel
	late := time.AfterFunc(5*time.Second, cancel)
	defer late.Stop()
	mod, err := m.runtime.InstantiateModule(ctx, m.code, wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize", "_start").
		WithSysNanotime().WithSysWalltime().WithRandSource(rand.Reader))
	if err != nil {
		cancel()
		return nil, err
	}
	in.mod = mod
	in.request, in.response = mod.ExportedFunction("handle_request"), mod.ExportedFunction("handle_response")
	if in.request == nil || mod.Memory() == nil {
		cancel()
		return nil, errors.Join(errors.New("it exports no handle_request or no memory: it has not the handler ABI of http-wasm"), mod.Close(context.Background()))
	}
	return in, nil
}

// instance is one loop's. Its lock is the loop's but for the moment in which it ends.
type instance struct {
	m                 *Module
	mu                sync.Mutex
	mod               api.Module
	ctx               context.Context
	cancel            context.CancelFunc
	request, response api.Function
	started           atomic.Int64 // when the call under way began, 0 without one
	thread            atomic.Int64 // that runs it
	// seen is the call that the watchdog knows, and used its thread's time at first sight.
	seen, used int64
	why        error // it was killed
	stack      [2]uint64

	q      *function.Request
	answer bool // it handles a request, and may answer it itself
	asks   []byte
	status int
	body   []byte
}

type instanceKey struct{}

// Request implements [function.Function].
func (m *Module) Request(q *function.Request) function.Verdict {
	in := m.loops[q.Loop].Load()
	if in == nil || !in.mu.TryLock() {
		return function.Failed
	}
	defer in.mu.Unlock()
	fields := append(q.Backup[:0], q.Fields...)
	q.Backup = fields
	q.Answer = function.Answer{Fields: q.Answer.Fields[:0]}
	in.q, in.answer, in.status, in.body = q, true, 0, in.body[:0]
	if err := in.call(in.request, 0, 0); err != nil {
		q.Fields = append(q.Fields[:0], fields...) // as if it had never been
		m.kill(q.Loop, in, err)
		return function.Failed
	}
	ctxNext := in.stack[0]
	if uint32(ctxNext) != 0 {
		*q.Context() = uint32(ctxNext >> 32)
		return function.Passed
	}
	q.Fields = append(q.Fields[:0], fields...)
	q.Answer.Status, q.Answer.Body = in.status, q.Keep(in.body)
	if q.Answer.Status == 0 {
		q.Answer.Status = 200
	}
	return function.Answered
}

// Response implements [function.Responder].
func (m *Module) Response(q *function.Request) function.Verdict {
	in := m.loops[q.Loop].Load()
	if in == nil || in.response == nil || !in.mu.TryLock() {
		if in != nil && in.response == nil {
			return function.Passed
		}
		return function.Failed
	}
	defer in.mu.Unlock()
	fields := append(q.Backup[:0], q.Fields...)
	q.Backup = fields
	in.q, in.answer = q, false
	if err := in.call(in.response, uint64(*q.Context()), 0); err != nil {
		q.Fields = append(q.Fields[:0], fields...)
		m.kill(q.Loop, in, err)
		return function.Failed
	}
	return function.Passed
}

// call runs an exported function, watched.
func (in *instance) call(f api.Function, a, b uint64) error {
	m := in.m
	in.stack[0], in.stack[1] = a, b
	in.thread.Store(int64(unix.Gettid()))
	in.started.Store(m.loader.Now())
	if !m.watching.Load() && m.watching.CompareAndSwap(false, true) {
		m.poke()
	}
	err := f.CallWithStack(in.ctx, in.stack[:])
	in.started.Store(0)
	in.q = nil
	return err
}

func (m *Module) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// kill takes an instance that failed away from its loop; the watchdog makes a new one.
func (m *Module) kill(loop int, in *instance, why error) {
	if m.loops[loop].CompareAndSwap(in, nil) {
		in.why = why
		m.kills.Add(1)
		m.dead <- in // there is room for all that are ever made
		m.poke()
	}
}

// watch cancels calls that take too long, and replaces instances that were killed.
func (m *Module) watch(ctx context.Context) {
	defer close(m.ended)
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		}
		tick := time.NewTicker(min(max(time.Duration(m.budget)/2, leastTick), mostTick))
		for rested := time.Now(); time.Since(rested) < restAfter; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
			if m.look() {
				rested = time.Now()
			}
			m.renew(ctx)
		}
		tick.Stop()
		m.watching.Store(false)
		if m.look() && m.watching.CompareAndSwap(false, true) {
			m.poke() // a call began in between
		}
	}
}

// threadTime is the processor's time that a thread of this process has taken, in ns: a
// call must not pay for what others take of a busy machine.
func threadTime(tid int) (int64, bool) {
	var ts unix.Timespec
	// The clock of a thread (clock_getcpuclockid(3)): ^tid, and 6 for a thread's own.
	err := unix.ClockGettime(int32(^tid<<3|6), &ts)
	return ts.Nano(), err == nil
}

// look cancels what is over its budget, and reports whether a call is under way.
func (m *Module) look() (busy bool) {
	now := m.loader.Now()
	for i := range m.loops {
		in := m.loops[i].Load()
		if in == nil {
			continue
		}
		began := in.started.Load()
		if began == 0 {
			continue
		}
		busy = true
		used, ok := threadTime(int(in.thread.Load()))
		switch {
		case in.seen != began:
			in.seen, in.used = began, used
		case ok && used-in.used > m.budget || !ok && now-began > m.budget:
			in.cancel()
		}
	}
	return busy
}

func (m *Module) renew(ctx context.Context) {
	for len(m.dead) > 0 {
		in := <-m.dead
		m.loader.Log.Warn("a WebAssembly function was killed", "function", m.key, "kills", m.kills.Load(), "of", mostKills, "why", in.why)
		in.cancel()
		if err := in.mod.Close(context.Background()); err != nil {
			m.loader.Log.Warn("close an instance of a WebAssembly function", "function", m.key, "err", err)
		}
	}
	for i := range m.loops {
		if m.loops[i].Load() != nil || m.kills.Load() >= mostKills {
			continue
		}
		in, err := m.instance(ctx)
		if err != nil {
			if ctx.Err() == nil {
				m.kills.Store(mostKills)
				m.loader.Log.Error("a WebAssembly function cannot be started again", "function", m.key, "err", err)
			}
			return
		}
		m.loops[i].Store(in)
	}
}

// Changed implements [function.Modules]: whether there is another file to try.
func (l *Loader) Changed(f function.Function) bool {
	m, ok := f.(*Module)
	if !ok {
		return false
	}
	now, err := stampOf(m.spec.File)
	if err != nil || now == m.stamp {
		return false // a file that is gone is about to come
	}
	if r := m.refused.Load(); r != nil && *r == now {
		return false
	}
	return true
}

// Refuse notes that the file as it is now cannot be served, so that it is not tried
// again before it changes.
func (l *Loader) Refuse(f function.Function, why error) {
	m, ok := f.(*Module)
	if !ok {
		return
	}
	if now, err := stampOf(m.spec.File); err == nil {
		m.refused.Store(&now)
	}
	l.Log.Error("a changed WebAssembly module is refused, the one before goes on", "function", m.key, "err", why)
}

// Close implements [function.Modules].
func (l *Loader) Close(f function.Function) {
	m, ok := f.(*Module)
	if !ok {
		return
	}
	m.stop()
	<-m.ended
	for i := range m.loops {
		if in := m.loops[i].Swap(nil); in != nil {
			in.mu.Lock() // a call under way ends first
			in.cancel()
			in.mu.Unlock()
		}
	}
	if err := m.runtime.Close(context.Background()); err != nil {
		l.Log.Warn("close a WebAssembly function", "function", m.key, "err", err)
	}
}
