package conf

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Defaults of ldirectord.yaml, ldirectord's.
const (
	DefaultCheckTimeout     = 5 * time.Second
	DefaultNegotiateTimeout = 30 * time.Second
	DefaultCheckInterval    = 10 * time.Second
	DefaultScheduler        = "wrr"
)

// Limits of one pool.
const (
	maxVirtuals = 20_000
	maxReals    = 200_000 // five times what DESIGN section 5 promises; ranges count expanded
	maxRange    = 4096    // servers of one range
	// maxPersistent is the kernel tool's limit, 31 days.
	maxPersistent = 31 * 24 * time.Hour
)

// Schedulers returns the schedulers of the Linux kernel.
func Schedulers() []string {
	return []string{"rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "fo", "ovf", "twos"}
}

// poolReader reads one ldirectord.yaml.
type poolReader struct {
	*reader
	global                   *checkFields
	settings                 serviceSettings
	autoreload               opt[bool]
	maintenancedir, callback opt[string]
	executes                 []execution
	fallback                 [2][]*serverEntry // global, for IPv4 and for IPv6
	at                       []*yaml.Node      // of Pool.Virtuals
	virtuals, reals          *int              // so far, in all files of the pool
	checks                   *int              // of all these servers
	try                      func(Check) error // Files.Try
	part                     bool              // another file executes this one
	whole                    *Pool             // what the pool's own file says
	wholeName                string
	stays                    bool                  // persistence is to go on with weight 0
	firstAt                  map[string]*yaml.Node // virtual services by Virtual.String
	regexps                  map[string]error
	names                    *names
}

func newPoolReader(file string) *poolReader {
	return &poolReader{reader: &reader{file: file, manual: "ldirectord.yaml(5)"}, global: newCheckFields(), firstAt: map[string]*yaml.Node{}, regexps: map[string]error{}, names: newNames(), virtuals: new(int), reals: new(int), checks: new(int), whole: new(Pool)}
}

func (p *poolReader) fields(virtuals **yaml.Node) []field {
	servers := func(i int) func(*yaml.Node) {
		return func(n *yaml.Node) { p.fallback[i] = p.readFallbacks(n, fallbackKeys[i]) }
	}
	return append(p.settings.fields(p.reader),
		field{"autoreload", "Whether an edited file is applied without `keepbeat apply`. Default no.", into(&p.autoreload, p.boolean)},
		field{"fallback", "Servers for IPv4 virtual services that have no quorum and no fallback of their own: HOST[:PORT] [gate|masq|ipip], default gate, or a mapping as of a real server. Of a list the first one that is up is taken. Default: none.", servers(0)},
		field{"fallback6", "The same for IPv6.", servers(1)},
		field{"maintenancedir", "Directory, an absolute path, on each director for itself: a file in it named ADDRESS:PORT, ADDRESS, NAME:PORT or NAME takes that real server out. Default: none.", into(&p.maintenancedir, p.path)},
		field{"callback", "Program, an absolute path, that is run on every director after a new version has been written to its files, with the path of this one as argument. Default: none.", into(&p.callback, p.program("callback"))},
		field{"execute", "Other pool files beside this one, a plain name or a list, whose virtual services belong to this pool, too; each with the global values of its own file. Default: none.", p.execute},
		field{"virtual", "The virtual services, a list. Required, or execute.", func(n *yaml.Node) { *virtuals = n }},
	)
}

// read parses the file. What is faulty is left out of the result, and in errs.
func (p *poolReader) read(data []byte) Pool {
	var pool Pool
	root := p.document(data)
	if root == nil {
		return pool
	}
	var virtuals *yaml.Node
	if !p.mapping(root, "a pool", append(p.fields(&virtuals), p.global.fields(p)...), poolElsewhere()) {
		return pool
	}
	pool.Autoreload = p.autoreload.or(false)
	pool.MaintenanceDir, pool.Callback = p.maintenancedir.or(""), p.callback.or("")
	if !p.part {
		*p.whole, p.wholeName = pool, p.file
	}
	pool.Email = p.settings.email.over(emailSettings{})
	p.globalFallbacks()
	switch {
	case virtuals == nil && (p.odd > 0 || len(p.executes) > 0):
	case virtuals == nil:
		p.errorf(root, "\"virtual\" is missing; list the virtual services: \"virtual: [{address: ..., real: [...]}]\"")
	case virtuals.Kind == yaml.SequenceNode && len(virtuals.Content) == 0:
		p.errorf(virtuals, "\"virtual\" is empty; list at least one virtual service")
	default:
		p.list(virtuals, "virtual", func(_ int, n *yaml.Node) {
			if *p.virtuals > maxVirtuals {
				return
			}
			for _, v := range p.virtual(n) {
				if *p.virtuals++; *p.virtuals == maxVirtuals+1 {
					p.errorf(n, "more than %d virtual services in one pool; make two of it", maxVirtuals)
				}
				if *p.virtuals > maxVirtuals {
					return
				}
				pool.Virtuals, p.at = append(pool.Virtuals, v), append(p.at, n)
			}
		})
	}
	if told := func(v Virtual) bool { return v.Email.To != "" }; p.settings.email.to.at == nil && !slices.ContainsFunc(pool.Virtuals, told) && p.odd == 0 {
		p.settings.email.useless(p.reader)
	}
	return pool
}

// regexp compiles every distinct expression once.
func (p *poolReader) regexp(s string) error {
	err, known := p.regexps[s]
	if !known {
		if len(s) > 4096 {
			err = fmt.Errorf("receive is longer than 4096 characters")
		} else if _, e := regexp.Compile(s); e != nil {
			err = fmt.Errorf("receive %s is not a regular expression (RE2: no look-around, no back-references): %s",
				quote(s), oneLine(strings.TrimPrefix(e.Error(), "error parsing regexp: ")))
		}
		p.regexps[s] = err
	}
	return err
}
