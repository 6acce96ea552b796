package link

import "github.com/keepbeat/keepbeat/conf"

// OpenSerial opens a serial device as the mesh does.
func OpenSerial(l conf.Link) (Port, error) { return (&sockets{}).open(l) }
