package checks

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
)

// Capabilities of client and server.
const (
	mysqlLongPassword     = 1 << 0
	mysqlConnectWithDB    = 1 << 3
	mysqlProtocol41       = 1 << 9
	mysqlTLS              = 1 << 11
	mysqlTransactions     = 1 << 13
	mysqlSecureConnection = 1 << 15
	mysqlMultiResults     = 1 << 17 // for CALL
	mysqlPluginAuth       = 1 << 19

	mysqlUTF8 = 33 // utf8_general_ci, which all servers have
)

// mysqlGreeting is the first packet of a server.
type mysqlGreeting struct {
	version      []byte
	scramble     []byte // 20 bytes
	capabilities uint32
	plugin       string
}

var errNoGreeting = errors.New("not a greeting of MySQL")

// parseMySQLGreeting reads protocol version 10.
func parseMySQLGreeting(p []byte) (g mysqlGreeting, err error) {
	if len(p) == 0 || p[0] != 10 {
		return g, errNoGreeting
	}
	var ok bool
	if g.version, p, ok = bytes.Cut(p[1:], []byte{0}); !ok || len(p) < 4+8+1+2 {
		return g, errMySQL
	}
	p = p[4:] // the connection's number
	g.scramble = append(g.scramble, p[:8]...)
	g.capabilities = uint32(binary.LittleEndian.Uint16(p[9:]))
	if p = p[11:]; len(p) < 1+2+2+1+10+12 || g.capabilities&mysqlProtocol41 == 0 {
		return g, errors.New("the server is older than MySQL 4.1")
	}
	g.capabilities |= uint32(binary.LittleEndian.Uint16(p[3:])) << 16
	p = p[16:]
	g.scramble = append(g.scramble, p[:12]...)
	if g.capabilities&mysqlPluginAuth != 0 && len(p) > 13 {
		plugin, _, _ := bytes.Cut(p[13:], []byte{0}) // some servers forget its end
		g.plugin = string(plugin)
	}
	return g, nil
}

// login answers the greeting. The version is the server's, for showing.
func (m *mysqlConn) login(user, database string, t *tls.Config) (version string, err error) {
	p, err := m.receive()
	if err != nil {
		return "", err
	}
	g, err := parseMySQLGreeting(p)
	if err == errNoGreeting {
		return "", fmt.Errorf("%w: %s", err, quoteWithout(m.password, p))
	}
	if err != nil {
		return "", err
	}
	// MariaDB puts a version before its own, for the sake of old replicas.
	version = quoteWithout(m.password, bytes.TrimPrefix(g.version, []byte("5.5.5-")))
	wanted := uint32(mysqlLongPassword | mysqlProtocol41 | mysqlTransactions | mysqlSecureConnection | mysqlMultiResults | mysqlPluginAuth)
	if database != "" {
		wanted |= mysqlConnectWithDB
	}
	if t != nil {
		if g.capabilities&mysqlTLS == 0 {
			return version, errors.New("the server offers no TLS")
		}
		wanted |= mysqlTLS
	}
	wanted &= g.capabilities | mysqlSecureConnection
	head := binary.LittleEndian.AppendUint32(nil, wanted)
	head = binary.LittleEndian.AppendUint32(head, 1<<24)
	head = append(append(head, mysqlUTF8), make([]byte, 23)...)
	if t != nil {
		if err := m.send(head); err != nil {
			return version, err
		}
		if err := m.s.startTLS(t); err != nil {
			return version, err
		}
		m.secure = true
	}
	if g.plugin == "" {
		g.plugin = "mysql_native_password"
	}
	// A method that is not known is not the last word: the user's may be another.
	proof, err := m.proof(g.plugin, g.scramble)
	if err != nil {
		g.plugin, proof = "mysql_native_password", nativePassword(m.password, g.scramble)
	}
	if len(proof) > 250 { // its length is one byte
		return version, fmt.Errorf("a password of %d bytes is too long for %s", len(m.password), g.plugin)
	}
	p = append(append(head, user...), 0, byte(len(proof)))
	p = append(p, proof...)
	if wanted&mysqlConnectWithDB != 0 {
		p = append(append(p, database...), 0)
	}
	if wanted&mysqlPluginAuth != 0 {
		p = append(append(p, g.plugin...), 0)
	}
	if err := m.send(p); err != nil {
		return version, err
	}
	return version, m.authenticate(g.plugin, g.scramble)
}

var errOldPassword = fmt.Errorf("the server wants a password of before MySQL 4.1, which cannot be sent safely: that method is %w", errUnknownPlugin)

// authenticate goes on until the server is content or not.
func (m *mysqlConn) authenticate(plugin string, scramble []byte) error {
	for range 10 { // the longest way takes four
		p, err := m.receive()
		if err != nil {
			return err
		}
		var reply []byte
		switch p[0] {
		case mysqlOK:
			return nil
		case mysqlEOF: // take another method
			name, data, ok := bytes.Cut(p[1:], []byte{0})
			if !ok {
				return errOldPassword
			}
			plugin, scramble = string(name), bytes.TrimSuffix(data, []byte{0})
			if reply, err = m.proof(plugin, scramble); err != nil {
				return err
			}
		case mysqlMore:
			var done bool
			if reply, done, err = m.more(plugin, scramble, p[1:]); err != nil {
				return err
			} else if done {
				continue
			}
		default:
			return errMySQL
		}
		if err := m.send(reply); err != nil {
			return err
		}
	}
	return errMySQL
}

// proof is the first answer by a method.
func (m *mysqlConn) proof(plugin string, scramble []byte) ([]byte, error) {
	switch plugin {
	case "mysql_native_password":
		return nativePassword(m.password, scramble), nil
	case "caching_sha2_password":
		return sha2Password(m.password, scramble), nil
	case "sha256_password":
		switch {
		case len(m.password) == 0:
			return []byte{0}, nil
		case m.secure:
			return m.clear(), nil
		}
		return []byte{1}, nil // asks for the server's key
	case "mysql_clear_password":
		if !m.secure && len(m.password) > 0 {
			return nil, errors.New("the server wants the password in the clear: set starttls")
		}
		return m.clear(), nil
	}
	return nil, fmt.Errorf("the server wants to authenticate by %s, which is %w; mysql_native_password and caching_sha2_password are", quoteWithout(m.password, []byte(plugin)), errUnknownPlugin)
}

func (m *mysqlConn) clear() []byte { return append(bytes.Clone(m.password), 0) }

// more answers what a server says in the middle of a method. done: nothing is
// to be answered.
func (m *mysqlConn) more(plugin string, scramble, data []byte) (reply []byte, done bool, err error) {
	const wellKnown, inFull = 3, 4
	switch {
	case plugin == "caching_sha2_password" && bytes.Equal(data, []byte{wellKnown}):
		return nil, true, nil
	case plugin == "caching_sha2_password" && bytes.Equal(data, []byte{inFull}):
		if m.secure {
			return m.clear(), false, nil
		}
		return []byte{2}, false, nil // asks for the server's key
	case plugin == "caching_sha2_password" || plugin == "sha256_password":
		reply, err = m.sealed(scramble, data)
		return reply, false, err
	}
	return nil, false, errMySQL
}

// sealed encrypts the password with the key that the server sent.
func (m *mysqlConn) sealed(scramble, key []byte) ([]byte, error) {
	block, _ := pem.Decode(key)
	if block == nil || len(scramble) == 0 {
		return nil, errMySQL
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the server's key: %w", err)
	}
	k, ok := public.(*rsa.PublicKey)
	if !ok || k.Size() > 1024 { // 8,192 bits: more would keep this machine busy
		return nil, errors.New("the server's key is none of RSA, of 8,192 bits at most")
	}
	p := m.clear()
	for i := range p {
		p[i] ^= scramble[i%len(scramble)]
	}
	p, err = rsa.EncryptOAEP(sha1.New(), rand.Reader, k, p, nil)
	if err != nil {
		return nil, fmt.Errorf("the server's key: %w", err)
	}
	return p, nil
}

// nativePassword is SHA1(password) XOR SHA1(scramble, SHA1(SHA1(password))).
func nativePassword(password, scramble []byte) []byte {
	if len(password) == 0 {
		return nil
	}
	once := sha1.Sum(password)
	twice := sha1.Sum(once[:])
	mix := sha1.Sum(append(bytes.Clone(scramble), twice[:]...))
	for i := range mix {
		mix[i] ^= once[i]
	}
	return mix[:]
}

// sha2Password is SHA256(password) XOR SHA256(SHA256(SHA256(password)), scramble).
func sha2Password(password, scramble []byte) []byte {
	if len(password) == 0 {
		return nil
	}
	once := sha256.Sum256(password)
	twice := sha256.Sum256(once[:])
	mix := sha256.Sum256(append(twice[:], scramble...))
	for i := range mix {
		mix[i] ^= once[i]
	}
	return mix[:]
}
