package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// What a node needs of the distribution, by the Debian package that has it.
var hostPrograms = []struct{ program, debianPackage string }{
	{"containerd", "containerd"},
	{"containerd-shim-runc-v2", "containerd"},
	{"ctr", "containerd"},
	{"runc", "runc"},
	{cniFolder + "/bridge", "containernetworking-plugins"},
	{cniFolder + "/host-local", "containernetworking-plugins"},
	{cniFolder + "/loopback", "containernetworking-plugins"},
	{"iptables", "iptables"},
	{"conntrack", "conntrack"},
	{"ipset", "ipset"},
	{"ip", "iproute2"},
}

// cniFolder is where Debian puts the plugins.
const cniFolder = "/usr/lib/cni"

// prepareHost sees that a node can run here, and installs the Debian packages that are missing.
func prepareHost(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("a cluster of size node needs root: run it with sudo, or use --size control-plane")
	}
	// The PATH of root is at times a user's, without the folders of the system's programs.
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin"); err != nil {
		return err
	}
	missing := missingPackages()
	if len(missing) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("failed to find what a node needs: install %s (these are the names of Debian's packages)", strings.Join(missing, ", "))
	}
	return installPackages(ctx, missing)
}

func missingPackages() []string {
	var missing []string
	seen := map[string]bool{}
	for _, needed := range hostPrograms {
		if _, err := exec.LookPath(needed.program); err != nil && !seen[needed.debianPackage] {
			seen[needed.debianPackage] = true
			missing = append(missing, needed.debianPackage)
		}
	}
	return missing
}

func installPackages(ctx context.Context, packages []string) error {
	cache, err := cacheDirectory()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return fmt.Errorf("failed to make the cache: %w", err)
	}
	progress := newProgress("installing " + strings.Join(packages, ", "))
	defer progress.stop()
	lock, err := lockFile(ctx, filepath.Join(cache, "apt.lock"))
	if err != nil {
		return fmt.Errorf("failed to lock the installation of packages: %w", err)
	}
	defer lock.Close()
	if packages = missingPackages(); len(packages) == 0 {
		return nil
	}
	log, err := os.Create(filepath.Join(cache, "apt.log"))
	if err != nil {
		return fmt.Errorf("failed to make the log of the installation: %w", err)
	}
	defer log.Close()
	unblock, err := blockServices()
	if err != nil {
		return err
	}
	defer unblock()

	install := append([]string{"install", "-y", "--no-install-recommends"}, packages...)
	if err := aptGet(ctx, log, install...); err != nil {
		// As a rule the lists of packages are missing or old.
		err = aptGet(ctx, log, "update")
		if err == nil {
			err = aptGet(ctx, log, install...)
		}
		if err != nil {
			return failure{doing: "install", program: strings.Join(packages, ", "), log: log.Name(), hint: "install them by hand: apt-get install " + strings.Join(packages, " "), cause: err}
		}
	}
	if slices.Contains(packages, "containerd") {
		disableService(ctx)
	}
	if missing := missingPackages(); len(missing) > 0 {
		return fmt.Errorf("failed to find the programs of %s after installing them: see %s", strings.Join(missing, ", "), log.Name())
	}
	return nil
}

func aptGet(ctx context.Context, log *os.File, arguments ...string) error {
	command := exec.CommandContext(ctx, "apt-get", append([]string{"-o", "DPkg::Lock::Timeout=300"}, arguments...)...)
	command.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	command.Stdout, command.Stderr = log, log
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = time.Minute // dpkg must not be killed in the middle
	return command.Run()
}

// blockServices keeps the packages from starting a service of their own (containerd's does): only this cluster's containerd is wanted. The means is
// Debian's, a policy that refuses (101) every start; an administrator's own policy is left as it is.
func blockServices() (func(), error) {
	const policy = "/usr/sbin/policy-rc.d"
	if _, err := os.Lstat(policy); err == nil {
		return func() {}, nil
	}
	if err := os.WriteFile(policy, []byte("#!/bin/sh\nexit 101\n"), 0o755); err != nil {
		return nil, fmt.Errorf("failed to keep packages from starting services: %w", err)
	}
	return func() { _ = os.Remove(policy) }, nil
}

// disableService undoes what the package of containerd has set for the next start of the machine.
func disableService(ctx context.Context) {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		_ = exec.CommandContext(ctx, "systemctl", "disable", "--now", "containerd.service").Run()
	}
}
