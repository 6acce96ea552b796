package rtnl

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Watch keeps somebody's picture of interfaces, addresses or routes up to date:
// Read takes all of it in, and Apply each change after that, as the kernel tells
// it. Fields are set before the first Take.
type Watch struct {
	Kernel *Kernel
	Groups []uint // RTNLGRP_*
	Buffer int    // bytes that hold what has not been taken in; 0: EventBuffer

	// Lock guards the picture and the Watch. It is held whenever one of the
	// functions below is called.
	Lock  sync.Locker
	Read  func() error
	Apply func(Message)
	// Lost is told that the kernel had more to tell than Buffer holds, and
	// all is read anew.
	Lost func()
	// Failed is told why the picture is out of date. The next Take, which is the
	// owner's to call, begins anew.
	Failed func(error)

	closed bool
	file   *os.File // nil: to be opened
	fd     int
	whole  bool // the picture has everything that was told before what lies in the socket
	buf    []byte
	wg     sync.WaitGroup
}

const (
	// takeTries: as often as events are lost while all is being read.
	takeTries = 5
	// eventsAtOnce (bytes) are read in one call, and are more than one datagram has.
	eventsAtOnce = 256 << 10
)

// Take makes the picture as fresh as if it were read now. The caller holds Lock.
// The error has been told to Failed, too; os.ErrClosed has not.
func (w *Watch) Take() error {
	if w.closed {
		return os.ErrClosed
	}
	err := w.take()
	if err != nil {
		w.Failed(err)
	}
	return err
}

func (w *Watch) take() error {
	if w.file == nil {
		if err := w.open(); err != nil {
			return err
		}
	}
	var err error
	for range takeTries {
		if !w.whole {
			// What lies in the socket is older than what is read below. After a
			// loss it would be repeated without what was lost, and the kernel
			// keeps all else to itself until the socket is empty.
			if err = Receive(w.fd, w.buf, func(Message) {}); err == nil {
				if err = w.Read(); err != nil {
					return err
				}
				w.whole = true
			}
		}
		if err == nil {
			err = Receive(w.fd, w.buf, w.Apply)
		}
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.ENOBUFS):
			w.drop()
			return fmt.Errorf("netlink subscription: %w", err)
		}
		w.whole = false
		w.Lost()
	}
	return fmt.Errorf("netlink subscription: %w", err)
}

func (w *Watch) open() error {
	fd, err := w.Kernel.Subscribe(cmp.Or(w.Buffer, EventBuffer), w.Groups...)
	if err != nil {
		return err
	}
	if w.buf == nil {
		w.buf = make([]byte, eventsAtOnce)
	}
	w.file, w.fd, w.whole = os.NewFile(uintptr(fd), "netlink"), fd, false
	file := w.file
	w.wg.Go(func() { w.listen(file) })
	return nil
}

// drop ends the subscription; the next Take opens another.
func (w *Watch) drop() {
	file := w.file
	w.file = nil
	w.wg.Go(func() { _ = file.Close() }) // waits for listen, which may be waiting for Lock
}

// listen takes in what the kernel tells when it tells it.
func (w *Watch) listen(file *os.File) {
	rc, err := file.SyscallConn()
	if err == nil {
		err = rc.Read(func(uintptr) bool {
			w.Lock.Lock()
			defer w.Lock.Unlock()
			if w.file == file {
				_ = w.Take() // Failed knows
			}
			return w.file != file
		})
	}
	w.Lock.Lock()
	defer w.Lock.Unlock()
	if err != nil && w.file == file {
		w.drop()
		w.Failed(err)
	}
}

// Close ends it. The caller does not hold Lock.
func (w *Watch) Close() {
	w.Lock.Lock()
	w.closed = true
	file := w.file
	w.file = nil
	w.Lock.Unlock()
	if file != nil {
		_ = file.Close()
	}
	w.wg.Wait()
}
