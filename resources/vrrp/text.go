package vrrp

import "fmt"

// UnmarshalText reads what MarshalText wrote.
func (s *State) UnmarshalText(b []byte) error {
	for _, v := range []State{Initialize, Backup, Master, Fault} {
		if v.String() == string(b) {
			*s = v
			return nil
		}
	}
	return fmt.Errorf("%q is no state of a virtual router", b)
}

// UnmarshalText reads what MarshalText wrote.
func (r *Reason) UnmarshalText(b []byte) error {
	for v, name := range reasonNames {
		if name != "" && name == string(b) {
			*r = Reason(v)
			return nil
		}
	}
	return fmt.Errorf("%q is no reason", b)
}
