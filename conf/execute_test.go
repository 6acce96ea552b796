package conf

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// executing has a pool a.yaml that executes others, each as its file says.
func executing() map[string]string {
	return map[string]string{
		"a.yaml": "quiescent: no\nmaintenancedir: /srv/m\nautoreload: yes\nexecute: [b.yaml, c.yaml]\nvirtual: [{address: 10.0.0.1:80, real: [10.0.0.9 gate]}]",
		"b.yaml": "fallback: 127.0.0.1\nexecute: d.yaml\nvirtual: [{address: 10.0.0.1:81, checktype: connect, real: [10.0.0.9 gate]}]",
		"c.yaml": "maintenancedir: /srv/m\nemailalert: root\nvirtual: [{address: 10.0.0.1:82, checktype: connect, real: [10.0.0.9 gate]}]",
		"d.yaml": "virtual: [{address: 10.0.0.1:83, checktype: connect, quiescent: no, real: [10.0.0.9 gate]}]",
	}
}

func inDirectory(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const executingGroup = "groups: {web: {resources: [{vip: 10.0.0.1}, {ldirectord: a.yaml}]}}"

func TestExecutedFilesArePartsOfThePool(t *testing.T) {
	files := executing()
	files[HaresourcesName] = executingGroup
	dir := inDirectory(t, files)
	read, err := ReadFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(read.PoolNames(), len(read.Pools)); got != "[a.yaml b.yaml c.yaml d.yaml] 4" {
		t.Errorf("files %s", got)
	}
	spec, warns, err := ParseSpec(read, nil)
	if err != nil || len(warns) > 0 {
		t.Fatal(warns, err)
	}
	if len(spec.Pools) != 1 {
		t.Errorf("%d pools", len(spec.Pools))
	}
	p := spec.Pools["a.yaml"]
	got := []string{fmt.Sprint(p.Executes, " ", p.MaintenanceDir)}
	for _, v := range p.Virtuals {
		got = append(got, fmt.Sprintf("%s quiescent %t fallbacks %d mail %q", v, v.Quiescent, len(v.Fallbacks), v.Email.To))
	}
	want := []string{
		"[b.yaml d.yaml c.yaml] /srv/m",
		`10.0.0.1:80 tcp quiescent false fallbacks 0 mail ""`,
		`10.0.0.1:81 tcp quiescent true fallbacks 1 mail ""`,
		`10.0.0.1:83 tcp quiescent false fallbacks 0 mail ""`,
		`10.0.0.1:82 tcp quiescent true fallbacks 0 mail "root"`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if !spec.Autoreloads("a.yaml") || !spec.Autoreloads("d.yaml") || spec.Autoreloads("e.yaml") || spec.Autoreloads(HaresourcesName) {
		t.Error("the parts of a pool are not applied like the pool")
	}
	roundTrip(t, spec)
}

func TestExecutedFilesThatCannotBe(t *testing.T) {
	for name, c := range map[string]struct {
		change map[string]string // files that are other than those of executing; empty: not there
		want   string
	}{
		"one that is missing":          {map[string]string{"d.yaml": ""}, `b.yaml:2:10: execute: "d.yaml": no such file beside haresources.yaml; known are: c.yaml, e.yaml`},
		"itself":                       {map[string]string{"d.yaml": "execute: d.yaml"}, `d.yaml:1:10: execute: "d.yaml" is read already, b.yaml names it in line 2; name each file once`},
		"a cycle":                      {map[string]string{"d.yaml": "execute: a.yaml"}, `d.yaml:1:10: execute: "a.yaml" is read already, group "web" names it in line 1; name each file once`},
		"twice":                        {map[string]string{"c.yaml": "execute: b.yaml"}, `c.yaml:1:10: execute: "b.yaml" is read already, a.yaml names it in line 4; name each file once`},
		"one of a group":               {map[string]string{HaresourcesName: strings.Replace(executingGroup, "]}}", "]}, mail: {resources: [{ldirectord: d.yaml}]}}", 1)}, `b.yaml:2:10: execute: "d.yaml" is read already, group "mail" names it in line 1; name each file once`},
		"no plain name":                {map[string]string{"d.yaml": "execute: ../e.yaml"}, `d.yaml:1:10: execute: "../e.yaml" is not a plain file name; pools are files beside haresources.yaml, such as ldirectord.yaml`},
		"a mapping":                    {map[string]string{"d.yaml": "execute: {file: e.yaml}"}, `d.yaml:1:10: the name of a pool file, mail.yaml is wanted, not a mapping`},
		"one with another directory":   {map[string]string{"d.yaml": "maintenancedir: /srv/other\nexecute: e.yaml"}, `d.yaml:1:17: maintenancedir is of a pool as a whole, and a.yaml, which executes this file, says otherwise; write it there only`},
		"one that is not reloaded":     {map[string]string{"d.yaml": "autoreload: no\nexecute: e.yaml"}, `d.yaml:1:13: autoreload is of a pool as a whole, and a.yaml, which executes this file, says otherwise; write it there only`},
		"one with a callback":          {map[string]string{"d.yaml": "callback: /bin/true\nexecute: e.yaml"}, `d.yaml:1:11: callback is of a pool as a whole, and a.yaml, which executes this file, says otherwise; write it there only`},
		"one with the same service":    {map[string]string{"d.yaml": executing()["b.yaml"], "b.yaml": strings.Replace(executing()["b.yaml"], "10.0.0.1:81", "10.0.0.1:84", 1)}, `d.yaml:2:10: execute: "d.yaml" is read already, b.yaml names it in line 2; name each file once`},
		"a service that is elsewhere":  {map[string]string{"d.yaml": strings.Replace(executing()["d.yaml"], "10.0.0.1:83", "10.0.0.1:80", 1)}, `d.yaml:1:11: duplicate virtual 10.0.0.1:80 tcp; it is already in a.yaml:5`},
		"a callback with an argument":  {map[string]string{"d.yaml": "callback: /bin/sync now\nexecute: e.yaml"}, `d.yaml:1:11: callback "/bin/sync now": no arguments can be given here; write a small script`},
		"a directory that is relative": {map[string]string{"d.yaml": "maintenancedir: m\nexecute: e.yaml"}, `d.yaml:1:17: "m" is not an absolute path; begin it with /`},
	} {
		t.Run(name, func(t *testing.T) {
			files := executing()
			files[HaresourcesName] = executingGroup
			files["e.yaml"] = "virtual: [{address: 10.0.0.1:85, checktype: connect, real: [10.0.0.9 gate]}]"
			for name, text := range c.change {
				files[name] = text
			}
			f := Files{Haresources: []byte(files[HaresourcesName]), Pools: map[string][]byte{}}
			for name, text := range files {
				if name != HaresourcesName && text != "" {
					f.Pools[name] = []byte(text)
				}
			}
			_, _, err := ParseSpec(f, nil)
			if err == nil || !slices.Contains(strings.Split(err.Error(), "\n"), c.want) {
				t.Errorf("it says\n%v\nand should say\n%s", err, c.want)
			}
		})
	}
}
