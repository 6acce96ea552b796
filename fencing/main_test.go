package fencing

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	CloseInherited() // as the daemon does
	goleak.VerifyTestMain(m)
}
