package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// The programs come from Go modules whose versions and sums are committed beside this file, and are kept in a cache by the content of these
// modules: a change of version is another folder, and every checkout of the repository shares the programs it needs.

// version of Kubernetes, as kubernetes/go.mod requires it; without it in the programs, clients fail to parse the server's version.
const kubernetesVersion = "v1.34.4"

// program is one program of a cluster.
type program struct {
	name    string
	module  string // folder below the sources
	pkg     string
	ldflags string
}

var kubernetesLdflags = func() string {
	major, minor, _ := strings.Cut(strings.TrimPrefix(kubernetesVersion, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	variable := " -X k8s.io/component-base/version."
	return variable + "gitVersion=" + kubernetesVersion + variable + "gitMajor=" + major + variable + "gitMinor=" + minor + variable + "gitTreeState=clean"
}()

func kubernetesProgram(name string) program {
	return program{name: name, module: "kubernetes", pkg: "k8s.io/kubernetes/cmd/" + name, ldflags: kubernetesLdflags}
}

// These two are of our own, and become images.
var (
	pauseProgram    = program{name: "pause", module: "pause", pkg: "."}
	consumerProgram = program{name: "consumer", module: "consumer", pkg: "."}
)

var etcdProgram = program{name: "etcd", module: "etcd", pkg: "."}

// version of helm, as helm/go.mod requires it.
const helmVersion = "v3.22.0"

// Without a cluster helm renders for the version of Kubernetes that is built into it: ours.
var helmProgram = func() program {
	minor := strings.Split(kubernetesVersion, ".")[1]
	ldflags := " -X helm.sh/helm/v3/internal/version.version=" + helmVersion
	for _, pkg := range []string{"lint/rules", "chartutil"} {
		variable := " -X helm.sh/helm/v3/pkg/" + pkg + ".k8sVersion"
		ldflags += variable + "Major=1" + variable + "Minor=" + minor
	}
	return program{name: "helm", module: "helm", pkg: "helm.sh/helm/v3/cmd/helm", ldflags: ldflags}
}()

// programsOf lists what a size needs. kube-apiserver takes longest, for it compiles most of what the others share.
func programsOf(size size) []program {
	programs := []program{etcdProgram, kubernetesProgram("kube-apiserver"), kubernetesProgram("kube-controller-manager"), kubernetesProgram("kubectl"), helmProgram}
	if size == nodeSize {
		programs = append(programs, kubernetesProgram("kube-scheduler"), kubernetesProgram("kubelet"), kubernetesProgram("kube-proxy"))
		programs = append(programs, pauseProgram, consumerProgram)
	}
	return programs
}

func programNamed(name string) (program, error) {
	var names []string
	for _, program := range programsOf(nodeSize) {
		if program.name == name {
			return program, nil
		}
		names = append(names, program.name)
	}
	return program{}, fmt.Errorf("%q is not a program of a cluster: %s", name, strings.Join(names, ", "))
}

// programPaths maps the name of a program to its file.
type programPaths map[string]string

// ensurePrograms returns the programs of a size, and compiles those that the cache has not.
func ensurePrograms(ctx context.Context, size size) (programPaths, error) {
	return ensure(ctx, programsOf(size))
}

func ensure(ctx context.Context, all []program) (programPaths, error) {
	paths := programPaths{}
	var missing []program
	for _, program := range all {
		path, err := program.path()
		if err != nil {
			return nil, err
		}
		paths[program.name] = path
		if !isExecutable(path) {
			missing = append(missing, program)
		}
	}
	if len(missing) == 0 {
		return paths, nil
	}
	began := time.Now()
	if len(all) > 1 {
		say("compiling %d of the cluster's %d programs; the first time takes about ten minutes on two cores", len(missing), len(all))
	}
	for i, program := range missing {
		if err := program.compile(ctx, paths[program.name], fmt.Sprintf("%d of %d", i+1, len(missing))); err != nil {
			return nil, err
		}
	}
	if len(all) > 1 {
		say("compiled the cluster's programs in %.0f s", time.Since(began).Seconds())
	}
	return paths, nil
}

// path is where the cache has, or will have, this program.
func (p program) path() (string, error) {
	cache, err := cacheDirectory()
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	fmt.Fprintln(hash, p.module, p.ldflags, runtime.GOOS, runtime.GOARCH)
	files, err := filepath.Glob(filepath.Join(sourceDirectory(), p.module, "*"))
	if err != nil || len(files) == 0 {
		return "", fmt.Errorf("failed to find the Go module of %s in %s: run the tool through tests/cluster/run", p.name, sourceDirectory())
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("failed to read the Go module of %s: %w", p.name, err)
		}
		fmt.Fprintln(hash, filepath.Base(file), len(content))
		hash.Write(content)
	}
	return filepath.Join(cache, hex.EncodeToString(hash.Sum(nil))[:16], "bin", p.name), nil
}

// compile builds one program under the lock of its place in the cache, so that of two runs at once the second waits and finds it done.
func (p program) compile(ctx context.Context, path, position string) error {
	folder := filepath.Dir(filepath.Dir(path))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("failed to make the cache for %s: %w", p.name, err)
	}
	progress := newProgress(fmt.Sprintf("compiling %s (%s)", p.name, position))
	defer progress.stop()
	lock, err := lockFile(ctx, filepath.Join(folder, "lock"))
	if err != nil {
		if ctx.Err() != nil {
			return errInterrupted
		}
		return fmt.Errorf("failed to lock the cache for %s: %w", p.name, err)
	}
	defer lock.Close()
	if isExecutable(path) {
		return nil
	}
	goCommand, err := exec.LookPath("go")
	if err != nil {
		return fmt.Errorf("failed to find the go command: install Go 1.24 or later and put it on PATH")
	}

	partial := path + ".partial"
	log := filepath.Join(folder, p.name+".build.log")
	command := exec.CommandContext(ctx, goCommand, "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w"+p.ldflags, "-o", partial, p.pkg)
	command.Dir = filepath.Join(sourceDirectory(), p.module)
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) } // go then ends its compilers and cleans its work folder
	command.WaitDelay = 10 * time.Second
	output, err := os.Create(log)
	if err != nil {
		return fmt.Errorf("failed to make the log of compiling %s: %w", p.name, err)
	}
	defer output.Close()
	command.Stdout, command.Stderr = output, output
	if err := command.Run(); err != nil {
		if ctx.Err() != nil {
			return errInterrupted
		}
		return compileFailure(p.name, log, err)
	}
	if err := os.Rename(partial, path); err != nil {
		return fmt.Errorf("failed to put %s into the cache: %w", p.name, err)
	}
	return nil
}

func compileFailure(name, log string, err error) error {
	tail := tailOf(log)
	hint := ""
	switch {
	case strings.Contains(tail, "dial tcp") || strings.Contains(tail, "Get \""):
		hint = "the Go modules could not be downloaded: see that `go env GOPROXY` can be reached"
	case strings.Contains(tail, "no space left"):
		hint = "free about 6 GB for Go's build cache (`go env GOCACHE`) and temporary files"
	case strings.Contains(tail, "signal: killed"):
		hint = "the compiler was killed, as a rule for want of memory: 4 GB are needed"
	case strings.Contains(tail, "requires go >="):
		hint = "install the version of Go named above, or let it come by itself with `go env -w GOTOOLCHAIN=auto`"
	}
	return failure{doing: "compile", program: name, log: log, hint: hint, cause: err}
}

// sourceDirectory is the folder of the Go modules; the script `run` names it, since the tool itself lies in the cache.
func sourceDirectory() string {
	return os.Getenv("CLUSTER_SOURCES")
}

func cacheDirectory() (string, error) {
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("failed to find a folder for the cache: set HOME or XDG_CACHE_HOME: %w", err)
		}
		cache = filepath.Join(home, ".cache")
	}
	return filepath.Join(cache, "bags-operator", "cluster"), nil
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// failure is a program that did not do what it should: it says which, where its log is and how that ends, and what to do.
type failure struct {
	doing   string
	program string
	log     string
	hint    string
	cause   error
}

func (f failure) Error() string {
	text := fmt.Sprintf("failed to %s %s: %v", f.doing, f.program, f.cause)
	if f.log != "" {
		text += "\n  its log: " + f.log
		if tail := tailOf(f.log); tail != "" {
			text += "\n  which ends:\n    " + strings.ReplaceAll(tail, "\n", "\n    ")
		}
	}
	if f.hint != "" {
		text += "\n  what to do: " + f.hint
	}
	return text
}

func (f failure) Unwrap() error { return f.cause }

// tailOf returns the last lines of a log, or nothing.
func tailOf(path string) string {
	const lines, width = 12, 400
	content, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	all := strings.Split(strings.TrimSpace(string(bytes.ToValidUTF8(content, []byte("?")))), "\n")
	all = all[max(0, len(all)-lines):]
	for i, line := range all {
		if len(line) > width {
			all[i] = line[:width] + "…"
		}
	}
	return strings.Join(all, "\n")
}

// progress tells the person at the terminal what takes so long.
type progress struct {
	text  string
	began time.Time
	done  chan struct{}
	ended chan struct{}
}

func newProgress(text string) *progress {
	p := &progress{text: text, began: time.Now(), done: make(chan struct{}), ended: make(chan struct{})}
	info, err := os.Stderr.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	go p.run(terminal)
	return p
}

// run rewrites one line each second on a terminal, and elsewhere (a log of CI) adds one line every half minute.
func (p *progress) run(terminal bool) {
	defer close(p.ended)
	interval := 30 * time.Second
	if terminal {
		interval = time.Second
	} else {
		say("%s", p.text)
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-p.done:
			if terminal {
				fmt.Fprint(os.Stderr, "\r\033[K")
			}
			say("%s: %.0f s", p.text, time.Since(p.began).Seconds())
			return
		case <-ticker.C:
			line := fmt.Sprintf("%s: %.0f s …", p.text, time.Since(p.began).Seconds())
			if terminal {
				fmt.Fprintf(os.Stderr, "\r\033[Kcluster: %s", line)
			} else {
				say("%s", line)
			}
		}
	}
}

func (p *progress) stop() {
	close(p.done)
	<-p.ended
}

var errInterrupted = errors.New("stopped before the cluster was ready")
