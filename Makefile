# keepbeat. `make demo` shows it, `make test` proves it; the rest are parts of those.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)

# The version is passed above; Go's own look at git refuses a clone that somebody else owns.
export GOFLAGS := $(GOFLAGS) -buildvcs=false

# Where `make install` puts things, below DESTDIR.
SBINDIR ?= /usr/sbin
UNITDIR ?= /lib/systemd/system
MANDIR  ?= /usr/share/man

# Tools by version, through the Go module proxy; nothing is installed.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0

# What a lab test needs beside its own binary: the program under test and the lab's tool.
LAB_ENV := KEEPBEAT_BIN=$(CURDIR)/bin/keepbeat KEEPBEAT_LABTOOL=$(CURDIR)/bin/labtool

# Packages of `go test ./...` that have a target of their own.
UNIT_PACKAGES = $(shell $(GO) list ./... | grep -vE '/test/(lab|sim|fault)(/|$$)')
# Packages with tests for the lab kernel: those with a test file tagged labkernel.
KERNEL_PACKAGES = $(shell grep -rlE '^//go:build labkernel$$' --include='*_test.go' . | xargs -r -n 1 dirname | sort -u)

# Which lab tests: a pattern of their names, or a folder of test/lab (RUN=checks).
RUN  ?= .
# How many specifications TestManyAppliesUnderTraffic applies; empty: its own few.
APPLIES ?=
RUNS ?= 50
SEED ?= 0

.PHONY: build labtool install test vet staticcheck vuln test-unit test-sim test-model model test-lab test-lab-host test-lab-kernel test-fault fault \
	sim demo bench-failover bench-checks bench-ipvs bench-vrrp lab-kernel deps clean

# ---- build

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/keepbeat ./cmd/keepbeat
	ln -sf keepbeat bin/hb_standby
	ln -sf keepbeat bin/hb_takeover
	ln -sf keepbeat bin/cl_status

labtool:
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/labtool ./test/lab/labtool

install: build
	install -D -m 755 bin/keepbeat $(DESTDIR)$(SBINDIR)/keepbeat
	ln -sf keepbeat $(DESTDIR)$(SBINDIR)/hb_standby
	ln -sf keepbeat $(DESTDIR)$(SBINDIR)/hb_takeover
	ln -sf keepbeat $(DESTDIR)$(SBINDIR)/cl_status
	for page in docs/man/*.[58]; do install -D -m 644 $$page $(DESTDIR)$(MANDIR)/man$${page##*.}/$${page##*/}; done
	for unit in scripts/*.service; do install -D -m 644 $$unit $(DESTDIR)$(UNITDIR)/$${unit##*/}; done

clean:
	rm -rf bin dist

# ---- everything that must pass; .ci/run calls it. On purpose one after the other: two cores, and readable.

test:
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory vet
	@$(MAKE) --no-print-directory staticcheck
	@$(MAKE) --no-print-directory vuln
	@$(MAKE) --no-print-directory test-unit
	@$(MAKE) --no-print-directory test-sim
	@$(MAKE) --no-print-directory test-model
	@$(MAKE) --no-print-directory test-lab
	@$(MAKE) --no-print-directory test-fault
	@echo 'make test: all passed'

vet:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then echo "gofmt would change: $$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags labkernel ./...

staticcheck:
	$(GO) run $(STATICCHECK) ./...

# Without the vulnerability database there is nothing to compare with: said, and not an error.
vuln:
	@if curl -sfL -m 10 -o /dev/null https://vuln.go.dev/index/db.json; then \
		echo '$(GO) run $(GOVULNCHECK) ./...'; $(GO) run $(GOVULNCHECK) ./...; \
	else \
		echo 'govulncheck: NOT CHECKED: the vulnerability database (https://vuln.go.dev) is not reachable from here'; \
	fi

# The race detector needs cgo; the program itself is built without. Fuzz targets run their seeds here.
test-unit:
	@test/lab/deps.sh race lab fencing
	CGO_ENABLED=1 $(GO) test -race -timeout 15m $(UNIT_PACKAGES)

# ---- simulation: the real code under testing/synctest

# The short one of `make test`; `make sim RUNS=500 SEED=7` prints schedules and the seed of each violation.
test-sim:
	KEEPBEAT_SIM_RUNS=$(RUNS) KEEPBEAT_SIM_SEED=$(SEED) $(GO) test -count=1 -timeout 15m ./test/sim/...

sim:
	KEEPBEAT_SIM_RUNS=$(RUNS) KEEPBEAT_SIM_SEED=$(SEED) $(GO) test -v -count=1 -timeout 4h -run '^TestShort$$' ./test/sim

# ---- the rules of leases and pairs, as models for spin; needs no root

test-model:
	@test/lab/deps.sh model
	@test/model/run.sh short

# Minutes, and up to 8 GB.
model:
	@test/lab/deps.sh model
	@test/model/run.sh deep

# ---- lab: real kernel, several hosts on one machine; needs root

LAB_FOLDER = $(if $(filter-out .,$(RUN)),$(shell if [ -d 'test/lab/$(RUN)' ]; then echo '$(RUN)'; fi))
LAB_RUN    = $(if $(LAB_FOLDER),.,$(RUN))

test-lab: test-lab-host test-lab-kernel

test-lab-host: deps lab-kernel build labtool
	@test/lab/deps.sh fencing checks vrrp
	$(LAB_ENV) $(GO) test -v -count=1 -p 1 -timeout 25m -run '$(LAB_RUN)' ./test/lab/$(addsuffix /,$(LAB_FOLDER))...

# In the lab kernel, or in the host's where that one has IPVS; it says which.
test-lab-kernel: deps lab-kernel build labtool
	$(if $(LAB_FOLDER),,$(LAB_ENV) KEEPBEAT_APPLIES=$(APPLIES) bin/labtool kerneltest -timeout 25m -run '$(RUN)' $(KERNEL_PACKAGES))

# ---- fault injection: real daemons in the lab; prints a table, as text and as a line of JSON

# What to inject (a regular expression of names), how long to draw, and into which cluster: trio or pair; empty: both.
FAULT         ?= .
FAULT_TIME    ?= 25m
FAULT_CLUSTER ?=
# Static, since it runs in the lab kernel too.
FAULT_TEST = $(LAB_ENV) KEEPBEAT_FAULT='$(FAULT)' KEEPBEAT_FAULT_SEED=$(SEED) KEEPBEAT_FAULT_CLUSTER=$(FAULT_CLUSTER) \
	CGO_ENABLED=0 $(GO) test -v -count=1

# Each kind once.
test-fault: deps lab-kernel build labtool
	@test/lab/deps.sh fault
	$(FAULT_TEST) -timeout 20m ./test/fault

# Drawn from a seed (SEED=n repeats one) for FAULT_TIME, combinations of two above all.
fault: deps lab-kernel build labtool
	@test/lab/deps.sh fault
	KEEPBEAT_FAULT_TIME=$(FAULT_TIME) $(FAULT_TEST) -timeout 8h ./test/fault

demo:
	@MAKE='$(MAKE)' test/demo/demo.sh

.PHONY: bin/demo
bin/demo:
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/demo ./test/demo

# PEERS=1 puts keepalived and heartbeat through the same events; BENCH='-n 30 -short-n 10' are flags of test/bench,
# BENCH='-event router -short-n 10' has nothing but routers of VRRP.
bench-failover: deps build labtool
	$(if $(filter 1,$(PEERS)),@test/lab/deps.sh peers)
	CGO_ENABLED=0 $(GO) build -o bin/bench ./test/bench
	$(LAB_ENV) bin/bench failover $(if $(filter 1,$(PEERS)),-peers) $(BENCH)

# PEERS=1 measures keepalived and ldirectord in the same run, each with a stand-in for the kernel's
# table; KERNEL=1 does it with a kernel that has IPVS. BENCH='-servers 10,100' are flags of test/bench.
bench-checks: deps build labtool $(if $(filter 1,$(KERNEL)),lab-kernel)
	$(if $(filter 1,$(PEERS)),@test/lab/deps.sh peers race)
	CGO_ENABLED=0 $(GO) build -o bin/bench ./test/bench
	$(LAB_ENV) $(if $(filter 1,$(KERNEL)),bin/labtool kernel -timeout 60m --) bin/bench checks $(if $(filter 1,$(KERNEL)),-kernel) $(if $(filter 1,$(PEERS)),-peers) $(BENCH)

# PEERS=1 has ipvsadm, keepalived and ldirectord fill tables in the same kernel; BENCH='-n 3'.
bench-ipvs: deps lab-kernel build labtool
	$(if $(filter 1,$(PEERS)),@test/lab/deps.sh peers)
	CGO_ENABLED=0 $(GO) build -o bin/bench ./test/bench
	$(LAB_ENV) bin/labtool kernel -timeout 60m -- bin/bench ipvs $(if $(filter 1,$(PEERS)),-peers) $(BENCH)

# Advertisements every 10 ms while addresses are programmed, and 1,000 instances; PEERS=1: keepalived, too. BENCH='-part thousand -for 30s'.
bench-vrrp: deps build labtool
	$(if $(filter 1,$(PEERS)),@test/lab/deps.sh peers)
	CGO_ENABLED=0 $(GO) build -o bin/bench ./test/bench
	$(LAB_ENV) bin/bench vrrp $(if $(filter 1,$(PEERS)),-peers) $(BENCH)

lab-kernel:
	@test/lab/kernel.sh

deps:
	@test/lab/deps.sh lab
