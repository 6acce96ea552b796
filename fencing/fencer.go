package fencing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// Config is what a Fencer is given.
type Config struct {
	Node   string       // this node
	Nodes  []conf.Node  // `nodes:` of ha.yaml, for the roles; a node that is not in it is taken for a director
	Logger *slog.Logger // nil discards
	// Pair says that a fenced node has to have ended: the rule `quorum: fencing` takes it as
	// the proof that a node was not fenced that it runs.
	Pair bool

	AgentDir  string // of fence agents; default DefaultAgentDir
	PluginDir string // of external/* plugins; default DefaultPluginDir
	Path      string // PATH of all programs; default DefaultPath
	// Verify is how long an agent's status may go on saying that a node is on after
	// off was done; default DefaultVerify.
	Verify time.Duration
	// Getenv looks up parameters of the form {env: NAME}; default os.LookupEnv.
	Getenv func(string) (string, bool)
	// Resets says why it is not known that a node which has fallen silent resets itself within a
	// time; nil: it is known. Without it that is known of no node, and no watchdog device fences.
	Resets func(node string, within time.Duration) error
	// Rand is the source of the random delay and of the jitter of looks; default: seeded by chance.
	Rand rand.Source
}

// Fencer operates the devices of a specification from this node. Its methods
// may be called from any goroutine.
type Fencer struct {
	cfg  Config
	log  *slog.Logger
	meta metadataCache
	open func(conf.FenceDevice) (device, error) // f.device; tests have others

	mu      sync.Mutex // guards what follows; never held across a run of a program
	rand    *rand.Rand
	spec    *conf.Fencing // nil: none; never changed, only replaced
	changed chan struct{} // closed when spec is replaced
	looked  map[string]look
	slots   map[string]*slot
	waiting []*confirmation
}

var _ Service = (*Fencer)(nil)

// look is what the last look at a device found.
type look struct {
	at  time.Time
	err error
}

// New returns a Fencer without devices.
func New(cfg Config) *Fencer {
	cfg.AgentDir = cmp.Or(cfg.AgentDir, DefaultAgentDir)
	cfg.PluginDir = cmp.Or(cfg.PluginDir, DefaultPluginDir)
	cfg.Path = cmp.Or(cfg.Path, DefaultPath)
	cfg.Verify = cmp.Or(cfg.Verify, DefaultVerify)
	if cfg.Getenv == nil {
		cfg.Getenv = os.LookupEnv
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.NewPCG(rand.Uint64(), rand.Uint64())
	}
	f := &Fencer{cfg: cfg, log: cfg.Logger, rand: rand.New(cfg.Rand), changed: make(chan struct{}), looked: map[string]look{}, slots: map[string]*slot{}}
	f.open = f.device
	return f
}

// Configure implements Service. The specification must not be changed afterwards.
func (f *Fencer) Configure(spec *conf.Fencing) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name := range f.looked {
		before, _ := find(f.spec, name)
		if now, there := find(spec, name); !there || !reflect.DeepEqual(before, now) {
			delete(f.looked, name)
		}
	}
	f.spec = spec
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *Fencer) current() *conf.Fencing {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.spec
}

// wanted is the action of the specification.
func (f *Fencer) wanted() conf.FenceAction {
	if spec := f.current(); spec != nil && spec.Action != 0 {
		return spec.Action
	}
	return conf.FenceReboot
}

// between returns a random time from 0 to below d.
func (f *Fencer) between(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Duration(f.rand.Int64N(int64(d)))
}

func find(spec *conf.Fencing, name string) (conf.FenceDevice, bool) {
	if spec == nil {
		return conf.FenceDevice{}, false
	}
	i := slices.IndexFunc(spec.Devices, func(d conf.FenceDevice) bool { return d.Name == name })
	if i < 0 {
		return conf.FenceDevice{}, false
	}
	return spec.Devices[i], true
}

func targetOf(d conf.FenceDevice, node string) (conf.FenceTarget, bool) {
	i := slices.IndexFunc(d.Targets, func(t conf.FenceTarget) bool { return t.Node == node })
	if i < 0 {
		return conf.FenceTarget{}, false
	}
	return d.Targets[i], true
}

// levelsOf returns the names of the devices of each level for a node.
func levelsOf(spec *conf.Fencing, node string) [][]string {
	if spec == nil {
		return nil
	}
	if levels, ok := spec.Topology[node]; ok {
		return levels
	}
	var levels [][]string
	for _, d := range spec.Devices {
		if _, ok := targetOf(d, node); ok {
			levels = append(levels, []string{d.Name})
		}
	}
	return levels
}

// mayOperate returns nil when the specification lets this node operate the device for a target.
func (f *Fencer) mayOperate(d conf.FenceDevice, target string) error {
	self := f.cfg.Node
	_, has := targetOf(d, target)
	switch {
	case target == self:
		return errors.New("a node does not fence itself")
	case !has:
		return fmt.Errorf("%s is not among its targets", target)
	case len(d.RunOn) > 0 && !slices.Contains(d.RunOn, self):
		return fmt.Errorf("it is operated by %s only (run_on)", strings.Join(d.RunOn, ", "))
	case slices.Contains(f.cfg.Nodes, conf.Node{Name: self, Role: conf.Witness}):
		return errors.New("it is operated by directors, and this is a witness")
	}
	return nil
}

// here returns the targets for which this node may operate the device.
func (f *Fencer) here(d conf.FenceDevice) []conf.FenceTarget {
	var list []conf.FenceTarget
	for _, t := range d.Targets {
		if f.mayOperate(d, t.Node) == nil {
			list = append(list, t)
		}
	}
	return list
}

// Can implements Service. It looks at the programs and at the files of secrets,
// and runs nothing.
func (f *Fencer) Can(node string) error {
	spec := f.current()
	levels := levelsOf(spec, node)
	if len(levels) == 0 {
		return fmt.Errorf("%w fences %s; give one under fencing: devices: in haresources.yaml", ErrNoDevice, node)
	}
	var why []string
	for i, names := range levels {
		lacks := f.lacks(spec, names, node)
		if lacks == nil {
			return nil
		}
		why = append(why, fmt.Sprintf("level %d: %v", i+1, lacks))
	}
	return fmt.Errorf("%w fences %s from here: %s", ErrNoDevice, node, strings.Join(why, "; "))
}

// Ends implements Service.
func (f *Fencer) Ends(ctx context.Context, node string) error {
	spec := f.current()
	var why []string
	for i, names := range levelsOf(spec, node) {
		lives := f.livesOn(ctx, spec, names)
		if lives == "" {
			return nil
		}
		why = append(why, fmt.Sprintf("level %d: %s", i+1, lives))
	}
	return fmt.Errorf("no device ends %s: %s", node, strings.Join(why, "; "))
}

// livesOn says which of a level's devices leaves a trusted node running; empty: none
// that is known to.
func (f *Fencer) livesOn(ctx context.Context, spec *conf.Fencing, names []string) string {
	for _, name := range names {
		d, there := find(spec, name)
		switch {
		case !there:
			return fmt.Sprintf("device %s: there is none of that name", name)
		case d.Type == conf.FenceWatchdog:
			return fmt.Sprintf("device %s waits until nobody hears it", name)
		case d.Type == conf.FenceAgent:
			m, err := f.meta.of(ctx, &agent{f: f, spec: d, path: f.cfg.programPath(d)})
			if err == nil && m.onItself {
				return fmt.Sprintf("device %s cuts it off only", name)
			}
		}
	}
	return ""
}

// lacks returns nil when this node can operate all these devices for a node.
func (f *Fencer) lacks(spec *conf.Fencing, names []string, node string) error {
	for _, name := range names {
		d, ok := find(spec, name)
		if !ok {
			return fmt.Errorf("device %s: there is none of that name", name)
		}
		err := f.mayOperate(d, node)
		if path := f.cfg.programPath(d); err == nil && path != "" {
			if err = usable(path); err != nil {
				err = notThere(path, err)
			}
		}
		if err == nil {
			_, err = resolve(d.Params, f.cfg.Getenv)
		}
		if err == nil {
			err = f.believe(d, node)
		}
		if err != nil {
			return fmt.Errorf("device %s: %w", name, err)
		}
	}
	return nil
}

// slot lets one use of a device be at a time. A fencing does not wait for a look: it ends it.
type slot struct {
	busy chan struct{} // one place; taken: in use

	mu      sync.Mutex // guards what follows
	fencing int        // that hold the device or wait for it
	endLook context.CancelCauseFunc
}

var errFencing = errors.New("a fencing is under way")

func (f *Fencer) slot(device string) *slot {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.slots[device]
	if s == nil {
		s = &slot{busy: make(chan struct{}, 1)}
		f.slots[device] = s
	}
	return s
}

// forFencing waits for the device.
func (s *slot) forFencing(ctx context.Context) (release func(), err error) {
	s.mu.Lock()
	s.fencing++
	if s.endLook != nil {
		s.endLook(errFencing)
	}
	s.mu.Unlock()
	leave := func() { s.mu.Lock(); s.fencing--; s.mu.Unlock() }
	select {
	case s.busy <- struct{}{}:
		return func() { leave(); <-s.busy }, nil
	case <-ctx.Done():
		leave()
		return nil, fmt.Errorf("the device was in use: %w", context.Cause(ctx))
	}
}

// forLook waits for the device, unless it is wanted for fencing.
func (s *slot) forLook(ctx context.Context) (during context.Context, release func(), err error) {
	select {
	case s.busy <- struct{}{}:
	default:
		if s.wanted() {
			return nil, nil, errFencing
		}
		select {
		case s.busy <- struct{}{}:
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
	during, end := context.WithCancelCause(ctx)
	s.mu.Lock()
	s.endLook = end
	if s.fencing > 0 {
		end(errFencing)
	}
	s.mu.Unlock()
	return during, func() {
		s.mu.Lock()
		s.endLook = nil
		s.mu.Unlock()
		end(nil)
		<-s.busy
	}, nil
}

func (s *slot) wanted() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.fencing > 0 }
