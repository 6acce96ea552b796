package checks

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// scramName is SCRAM without channel binding (RFC 5802, RFC 7677).
const scramName = "SCRAM-SHA-256"

// maxIterations bounds the work that a server can ask for in each check: about
// a tenth of a second. PostgreSQL's own number is 4,096.
const maxIterations = 600_000

// scramClient is one authentication. The user is told elsewhere: PostgreSQL
// looks at no name in SCRAM. A password is taken as it is written: one that is
// not in normal form KC (RFC 4013) does not fit.
type scramClient struct {
	password  []byte
	nonce     string
	bare      string // the first message without its head
	signature []byte // what the server has to show
	proved    bool   // it has
}

var errScram = errors.New("not a well-formed message of " + scramName)

func newScramClient(password []byte) *scramClient {
	return &scramClient{password: password, nonce: rand.Text()}
}

// first is the client's first message.
func (c *scramClient) first() string {
	c.bare = "n=,r=" + c.nonce
	return "n,," + c.bare // no channel binding
}

// final answers the server's first message, of which there is one: each costs
// as many iterations as the server likes.
func (c *scramClient) final(server string) (string, error) {
	if c.signature != nil {
		return "", errScram
	}
	nonce, rest, ok1 := strings.Cut(strings.TrimPrefix(server, "r="), ",s=")
	salt64, count, ok2 := strings.Cut(rest, ",i=")
	if !ok1 || !ok2 || !strings.HasPrefix(server, "r=") || !strings.HasPrefix(nonce, c.nonce) || len(nonce) == len(c.nonce) {
		return "", errScram
	}
	salt, err := base64.StdEncoding.DecodeString(salt64)
	if err != nil || len(salt) == 0 {
		return "", errScram
	}
	count, _, _ = strings.Cut(count, ",") // extensions
	iterations, err := strconv.Atoi(count)
	if err != nil || iterations < 1 {
		return "", errScram
	}
	if iterations > maxIterations {
		return "", fmt.Errorf("the server asks for %d iterations of %s; at most %d are made", iterations, scramName, maxIterations)
	}
	salted, err := pbkdf2.Key(sha256.New, string(c.password), salt, iterations, sha256.Size)
	if err != nil {
		return "", err
	}
	without := "c=biws,r=" + nonce // biws: "n,,"
	signed := c.bare + "," + server + "," + without
	clientKey := hmacSHA256(salted, "Client Key")
	stored := sha256.Sum256(clientKey)
	proof := hmacSHA256(stored[:], signed)
	for i := range proof {
		proof[i] ^= clientKey[i]
	}
	c.signature = hmacSHA256(hmacSHA256(salted, "Server Key"), signed)
	return without + ",p=" + base64.StdEncoding.EncodeToString(proof), nil
}

// verify reads the server's last message: it has to know the password, too.
func (c *scramClient) verify(server string) error {
	v, ok := strings.CutPrefix(server, "v=")
	if !ok || c.signature == nil {
		return errScram
	}
	v, _, _ = strings.Cut(v, ",")
	got, err := base64.StdEncoding.DecodeString(v)
	if err != nil || !hmac.Equal(got, c.signature) {
		return errors.New("the server has not shown that it knows the password")
	}
	c.proved = true
	return nil
}

func hmacSHA256(key []byte, s string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(s))
	return h.Sum(nil)
}
