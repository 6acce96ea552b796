// Package checks holds the checks of package checks against the real server
// programs, each of which is up, slow, answers wrongly, is silent, and refuses.
//
// A server is a child process with a configuration that the test writes, on
// loopback and ports of the test's own, in a process namespace that ends with
// it. To add one, write a file with its name: start it with startServer, and
// let a story tell what its check says in each situation.
//
//	make test-lab RUN=checks
package checks
