package checks

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// quickAck has acknowledgements sent at once, or with data for a while.
func quickAck(fd int, on bool) error {
	var v int32
	if on {
		v = 1
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// connectTo is unix.Connect of a non-blocking socket, and so without telling the
// runtime of a system call that might block. 0: connected.
func connectTo(fd int, to unix.Sockaddr) unix.Errno {
	var raw unix.RawSockaddrInet6
	p, size := unsafe.Pointer(&raw), uintptr(unix.SizeofSockaddrInet6)
	switch to := to.(type) {
	case *unix.SockaddrInet4:
		four := (*unix.RawSockaddrInet4)(p)
		four.Family, four.Port, four.Addr = unix.AF_INET, networkOrder(to.Port), to.Addr
		size = unix.SizeofSockaddrInet4
	case *unix.SockaddrInet6:
		raw.Family, raw.Port, raw.Addr, raw.Scope_id = unix.AF_INET6, networkOrder(to.Port), to.Addr, to.ZoneId
	default:
		return unix.EAFNOSUPPORT
	}
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(p), size)
	return errno
}

// networkOrder is a port as the kernel takes it.
func networkOrder(port int) uint16 {
	b := [2]byte{byte(port >> 8), byte(port)}
	return *(*uint16)(unsafe.Pointer(&b))
}
