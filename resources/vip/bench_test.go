package vip

import "testing"

// BenchmarkHandover is one Stop and one Start with its Record, first announcement included.
func BenchmarkHandover(b *testing.B) {
	a, _ := pair(b)
	v := started(b, a.maker(), written("10.0.0.5"))
	for b.Loop() {
		stop(b, v)
		recorded(b, v)
		if err := v.Start(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
