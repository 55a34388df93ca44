package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Control groups have no namespace that would end them together with a node's processes, so each node puts its pods under one group of its own name,
// in each hierarchy of the first version or in the one of the second, and that is removed when its processes have ended.

const controlGroupRoot = "/sys/fs/cgroup"

// controlGroupFolders are the places where a group of this name (or pattern) is, or would be.
func controlGroupFolders(name string) ([]string, error) {
	if _, err := os.Stat(filepath.Join(controlGroupRoot, "cgroup.controllers")); err == nil {
		return []string{filepath.Join(controlGroupRoot, name)}, nil
	}
	hierarchies, err := os.ReadDir(controlGroupRoot)
	if err != nil {
		return nil, fmt.Errorf("failed to find the control groups of this machine: %w", err)
	}
	var folders []string
	for _, hierarchy := range hierarchies {
		// Links such as "cpu" stand for "cpu,cpuacct".
		if hierarchy.IsDir() {
			folders = append(folders, filepath.Join(controlGroupRoot, hierarchy.Name(), name))
		}
	}
	return folders, nil
}

func makeControlGroups(name string) error {
	folders, err := controlGroupFolders(name)
	if err != nil {
		return err
	}
	if err := enableControllers(); err != nil {
		return err
	}
	for _, folder := range folders {
		if err := os.Mkdir(folder, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("failed to make a control group: %w", err)
		}
	}
	return nil
}

// enableControllers sees that, in the second version, groups below the root have every controller that the kubelet insists on. Systemd enables most of
// them anyway. It is the one thing of the machine that may change and stay so, as it does with every kubelet.
func enableControllers() error {
	available, err := os.ReadFile(filepath.Join(controlGroupRoot, "cgroup.controllers"))
	if errors.Is(err, os.ErrNotExist) {
		return nil // the first version
	}
	if err != nil {
		return fmt.Errorf("failed to read the controllers of control groups: %w", err)
	}
	subtree := filepath.Join(controlGroupRoot, "cgroup.subtree_control")
	enabled, err := os.ReadFile(subtree)
	if err != nil {
		return fmt.Errorf("failed to read the enabled controllers of control groups: %w", err)
	}
	for _, controller := range []string{"cpu", "cpuset", "memory", "hugetlb", "pids"} {
		if !slices.Contains(strings.Fields(string(available)), controller) || slices.Contains(strings.Fields(string(enabled)), controller) {
			continue
		}
		if err := os.WriteFile(subtree, []byte("+"+controller), 0o644); err != nil {
			return fmt.Errorf("failed to enable the controller %s of control groups (a container must share the machine's: --cgroupns=host): %w", controller, err)
		}
	}
	return nil
}

// removeControlGroups removes the group of this name everywhere, once the processes in it have ended, which those of a dead node do by themselves.
func removeControlGroups(name string) error {
	folders, err := controlGroupFolders(name)
	if err != nil {
		return nil // no control groups at all
	}
	const limit = 15 * time.Second
	for deadline := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		var failure error
		for _, folder := range folders {
			if err := removeControlGroup(folder); err != nil {
				failure = err
			}
		}
		if failure == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("failed to remove a control group of the cluster: %w", failure)
		}
	}
}

// removeControlGroup removes a group and those in it. Their files cannot be removed, and need not be.
func removeControlGroup(folder string) error {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeControlGroup(filepath.Join(folder, entry.Name())); err != nil {
				return err
			}
		}
	}
	if err := syscall.Rmdir(folder); err != nil && !errors.Is(err, os.ErrNotExist) {
		return &os.PathError{Op: "rmdir", Path: folder, Err: err}
	}
	return nil
}

// sweepControlGroups removes the groups of clusters whose tool and janitor were both killed. A group in use cannot be removed, whatever we believe of it.
func sweepControlGroups() {
	folders, err := controlGroupFolders("bags-cluster-*")
	if err != nil {
		return
	}
	for _, pattern := range folders {
		found, _ := filepath.Glob(pattern)
		for _, folder := range found {
			name := filepath.Base(folder)
			pid, err := strconv.Atoi(strings.Split(name, "-")[2])
			if err == nil && controlGroupName(pid) != name {
				_ = removeControlGroup(folder)
			}
		}
	}
}
