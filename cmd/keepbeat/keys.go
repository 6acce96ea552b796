package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/cluster/api"
	"github.com/keepbeat/keepbeat/conf"
)

func (a *app) keysCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "keys",
		Short: "Change the keys of the links while everything runs",
		Long: `Every node accepts each key of its authkeys and seals with one of them. To
change it: keys generate --add, keys use NEW, keys remove OLD. Nothing moves,
and nothing is lost. Each step can be repeated when a node was away.`,
		Args: noWords,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("generate, add, use, remove or list is missing")}
		},
	}
	c.AddCommand(a.keysGenerateCommand(), a.keysAddCommand(), a.keysUseCommand(), a.keysRemoveCommand(), a.keysListCommand())
	return c
}

func (a *app) keysGenerateCommand() *cobra.Command {
	var add bool
	c := &cobra.Command{
		Use:   "generate [N] [--add]",
		Short: "Make a random key",
		Long: `Prints a new key of 256 random bits as a line of authkeys, by default with
number 1. With --add it is not printed but given to every node, by default
under a free number.`,
		Args: atMost(1), DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			index, err := keyNumber(args)
			if err != nil {
				return err
			}
			var random [32]byte
			if _, err := rand.Read(random[:]); err != nil {
				return err
			}
			key := base64.RawURLEncoding.EncodeToString(random[:])
			if add {
				return a.addKey(cmd.Context(), index, key)
			}
			_, err = fmt.Fprintf(a.stdout, "%d sha1 %s\n", cmp.Or(index, 1), key)
			return err
		},
	}
	c.Flags().BoolVar(&add, "add", false, "give it to every node instead of printing it")
	return c
}

func (a *app) keysAddCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "add [N] [--key-file FILE]",
		Short: "Give every node a key that is accepted from then on",
		Long: `Adds a key to every node's authkeys and puts it in force; nobody seals with it
yet. The file holds the key alone, or a line as keys generate prints it; - is
standard input. Without a file, key N of this node goes to the nodes that lack
it: that is the way to repeat it for one that was away.`,
		Args: atMost(1), DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			index, err := keyNumber(args)
			if err != nil {
				return err
			}
			key := ""
			switch {
			case file != "":
				if key, err = a.readKey(cmd.InOrStdin(), file); err != nil {
					return err
				}
			case index == 0:
				return usageError{errors.New("name the file with the key: --key-file FILE (- is standard input); `keepbeat keys generate --add` makes a key")}
			}
			return a.addKey(cmd.Context(), index, key)
		},
	}
	c.Flags().StringVar(&file, "key-file", "", "file with the key; - is standard input")
	return c
}

func (a *app) keysUseCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "use N",
		Short: "Make every node seal with a key",
		Long: `Every node seals with key N from then on and goes on accepting the others. It is
refused, and nothing is changed, unless every configured node answers and holds
that very key.`,
		Args: exactly(1), DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeKey(cmd.Context(), args, false, (*api.Client).UseKey, "%s: seals with key %d", "keepbeat keys use %d")
		},
	}
}

func (a *app) keysRemoveCommand() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "remove N [--force]",
		Short: "Take a key from every node",
		Long: `Takes key N out of every node's authkeys; it is not accepted any more. It is
refused while a node seals with it, and, without --force, while a node is away.`,
		Args: exactly(1), DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeKey(cmd.Context(), args, force, (*api.Client).RemoveKey, "%s: has no key %d any more", "keepbeat keys remove %d")
		},
	}
	c.Flags().BoolVar(&force, "force", false, "also while a node is away")
	return c
}

func (a *app) keysListCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "Show which node holds which keys",
		Long: `Shows the numbers of the keys, fingerprints by which they can be compared, the
nodes that seal with each and those that lack it. Exit code 1 (not with --json) when a node is
away, lacks a key, or has an authkeys that was edited by hand.`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), answerTime)
			defer cancel()
			k, err := a.client().Keys(ctx)
			if err != nil {
				return err
			}
			if asJSON {
				b, err := marshal(k)
				if err == nil {
					_, err = a.stdout.Write(b)
				}
				return err
			}
			if !showKeys(a.stdout, k.Nodes) {
				return silentError(exitRefused)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// keyNumber reads the optional number of a key; 0: none was given.
func keyNumber(args []string) (int, error) {
	if len(args) == 0 {
		return 0, nil
	}
	n, err := strconv.Atoi(args[0])
	if err != nil || n < 1 || n > conf.MaxKeyIndex {
		// It may be a key in the wrong place: not repeated.
		return 0, usageError{fmt.Errorf("the number of a key is 1 to %d; the key itself is never an argument, which others can see: --key-file FILE", conf.MaxKeyIndex)}
	}
	return n, nil
}

// readKey reads a key file: at most 4 KiB.
func (a *app) readKey(stdin io.Reader, path string) (string, error) {
	const most = 4 << 10
	in := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, most+1))
	if err != nil {
		return "", err
	}
	key, ok := parseKey(string(b))
	if !ok || len(b) > most {
		return "", fmt.Errorf("%s: it holds no key: it is one word, or a line \"N sha1 KEY\"", path)
	}
	return key, nil
}

// parseKey finds the key in a file that holds it alone or as a line of authkeys.
func parseKey(text string) (key string, ok bool) {
	words := strings.Fields(text)
	switch {
	case strings.Contains(strings.TrimSpace(text), "\n"):
		return "", false
	case len(words) == 1:
		return words[0], true
	case len(words) == 3:
		return words[2], true
	}
	return "", false
}

func (a *app) addKey(ctx context.Context, index int, key string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*answerTime)
	defer cancel()
	r, err := a.client().AddKey(ctx, api.Key{Index: index, Key: api.KeyText(key)})
	if err != nil {
		return err
	}
	if err := a.keyChanged(r, "%s: accepts key %d", "keepbeat keys add %d"); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "every node holds key %d (%s); `keepbeat keys use %d` makes them seal with it\n", r.Key.Index, r.Key.Fingerprint, r.Key.Index)
	return err
}

type keyChanger func(c *api.Client, ctx context.Context, k api.Key) (cluster.KeyChange, error)

func (a *app) changeKey(ctx context.Context, args []string, force bool, do keyChanger, text, again string) error {
	index, err := keyNumber(args)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*answerTime)
	defer cancel()
	r, err := do(a.client(), ctx, api.Key{Index: index, Force: force})
	if err != nil {
		return err
	}
	return a.keyChanged(r, text, again)
}

// keyChanged says what became of a change on each node.
func (a *app) keyChanged(r cluster.KeyChange, text, again string) error {
	for _, name := range r.Done {
		fmt.Fprintf(a.stdout, text+"\n", name, r.Key.Index)
	}
	if len(r.Undone) == 0 {
		return nil
	}
	for _, u := range r.Undone {
		a.complain(fmt.Errorf("%s: not done: %s", u.Node, u.Why))
	}
	fmt.Fprintf(a.stderr, "run `"+again+"` again when they answer\n", r.Key.Index)
	return silentError(exitRefused)
}

// showKeys prints the keys as a table and what is wrong below; good: nothing is.
func showKeys(w io.Writer, nodes []cluster.NodeKeys) (good bool) {
	type key struct {
		print         string
		sealing, lack []string
	}
	held := map[cluster.KeyInfo]bool{}
	var wrong []string
	for _, n := range nodes {
		for _, k := range n.Keys {
			held[k] = true
		}
		if n.Away != "" {
			wrong = append(wrong, "node "+n.Node+" cannot be asked: "+n.Away)
		}
		if n.Fault != "" {
			wrong = append(wrong, "node "+n.Node+": "+n.Fault)
		}
	}
	order := make([]cluster.KeyInfo, 0, len(held))
	for k := range held {
		order = append(order, k)
	}
	slices.SortFunc(order, func(a, b cluster.KeyInfo) int {
		return cmp.Or(a.Index-b.Index, strings.Compare(a.Fingerprint, b.Fingerprint))
	})
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "key\tfingerprint\tsealed with by\tlacking on")
	for i, k := range order {
		row := key{print: k.Fingerprint}
		for _, n := range nodes {
			switch {
			case n.Away != "":
			case !slices.Contains(n.Keys, k):
				row.lack = append(row.lack, n.Node)
			case n.Active == k.Index:
				row.sealing = append(row.sealing, n.Node)
			}
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\n", k.Index, row.print, cmp.Or(strings.Join(row.sealing, ", "), "-"), cmp.Or(strings.Join(row.lack, ", "), "-"))
		twin := func(j int) bool { return j >= 0 && j < len(order) && order[j].Index == k.Index }
		switch {
		case twin(i + 1): // said with the last of them
		case twin(i - 1):
			wrong = append(wrong, fmt.Sprintf("key %d is not the same on every node", k.Index))
		case len(row.lack) > 0:
			wrong = append(wrong, fmt.Sprintf("%s: key %d is lacking: `keepbeat keys add %d` on a node that has it, or `keepbeat keys remove %d`", strings.Join(row.lack, ", "), k.Index, k.Index, k.Index))
		}
	}
	t.Flush()
	for _, l := range wrong {
		fmt.Fprintln(w, l)
	}
	return len(wrong) == 0
}
