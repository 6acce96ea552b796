package cluster

// Autoreloads says whether an edit of one of the specification's files on this
// node is to be applied without `keepbeat apply`: by the replicated setting,
// or, for a pool that is in force and its parts, by its own.
func (n *Node) Autoreloads(file string) bool {
	st := n.State()
	return st.Spec != nil && st.Spec.Autoreloads(file)
}

// FilesFault makes status show why this node's files are not what the cluster
// runs; empty: they are.
func (n *Node) FilesFault(text string) { n.setSpecErr(text) }
