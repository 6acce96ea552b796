package main

import (
	"fmt"
	"os"

	"github.com/keepbeat/keepbeat/checks"
	"github.com/keepbeat/keepbeat/conf"
)

// trying has the checks of the files tried on this node, when it is a director:
// a program or a certificate that is missing is to be told now, not when the
// pool starts. A witness checks nothing and needs none of them.
func trying(files conf.Files, local *conf.Local) conf.Files {
	if local != nil && isDirector(local) {
		files.Try = func(c conf.Check) error {
			// Files with passwords are read for each check, so that NewChecker does not look at them.
			for key, path := range map[string]string{"passwd_file": c.PasswdFile, "secret_file": c.SecretFile} {
				if path == "" {
					continue
				}
				if _, err := os.Stat(path); err != nil {
					return fmt.Errorf("%s %s: %w; write it on each director", key, path, unwrapPath(err))
				}
			}
			_, err := checks.NewChecker(c)
			return err
		}
	}
	return files
}

// trying is that of files that may be from elsewhere, of which it only notes
// that there would be something to try.
func (k *checker) trying(files conf.Files, local *conf.Local) conf.Files {
	if k.here {
		return trying(files, local)
	}
	files.Try = func(c conf.Check) error {
		for _, path := range []string{c.Command, c.PasswdFile, c.SecretFile, c.TLSCA, c.TLSCert, c.TLSKey} {
			k.unseen = k.unseen || path != ""
		}
		return nil
	}
	return files
}

// tooFewDescriptors says when checks would wait for each other; empty: they need not.
func tooFewDescriptors(spec *conf.Spec, local *conf.Local, have int) string {
	if spec == nil || local == nil || !isDirector(local) {
		return ""
	}
	var all []conf.Check
	for _, p := range spec.Pools {
		for _, v := range p.Virtuals {
			for _, servers := range [][]conf.Real{v.Reals, v.Fallbacks} {
				for _, r := range servers {
					all = append(append(all, r.Check), r.Also...)
				}
			}
		}
	}
	need := checks.Need(all)
	if need <= have {
		return ""
	}
	return fmt.Sprintf("when no server answers, the checks need %d descriptors at once, and there are %d for them: failures would be found late; raise LimitNOFILE of keepbeat.service by %d, or the limit of this shell (ulimit -n)", need, have, need-have)
}
