package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

func TestOnlyOurOwnFilesAreRemovedFromAFolderThatTheCallerNamed(t *testing.T) {
	folder := t.TempDir()
	for _, path := range []string{"etcd/data", "pki/ca.key", "kubeconfig", "logs/etcd.log", "notes.txt", "lock"} {
		write(t, filepath.Join(folder, path), "x")
	}
	if err := finishState(folder, false, "bags-cluster-none"); err != nil {
		t.Fatal(err)
	}
	if left := names(t, folder); !slices.Equal(left, []string{"lock", "logs", "notes.txt"}) {
		t.Errorf("left are %v", left)
	}
}

func TestAFolderOfOurOwnGoesWithTheClusterUnlessItDidNotBoot(t *testing.T) {
	for failed, wanted := range map[bool]bool{false: false, true: true} {
		folder := filepath.Join(t.TempDir(), "state")
		write(t, filepath.Join(folder, "logs", "etcd.log"), "x")
		write(t, filepath.Join(folder, "kubeconfig"), "x")
		if failed {
			write(t, filepath.Join(folder, failedName), "")
		}
		if err := finishState(folder, true, "bags-cluster-none"); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(folder, "logs", "etcd.log")); (err == nil) != wanted {
			t.Errorf("failed: %v, and the logs: %v", failed, err)
		}
		if _, err := os.Stat(filepath.Join(folder, "kubeconfig")); err == nil {
			t.Error("the administrator's credentials stay behind")
		}
	}
}

func TestFoldersOfDeadClustersAreSweptAndThoseOfLivingOnesAreNot(t *testing.T) {
	old := time.Now().Add(-time.Hour)
	make := func(name string, files ...string) string {
		folder := filepath.Join(t.TempDir(), name)
		for _, file := range files {
			write(t, filepath.Join(folder, file), "x")
		}
		if err := os.Chtimes(folder, old, old); err != nil {
			t.Fatal(err)
		}
		return folder
	}
	dead, living, failed := make("dead", "lock", "etcd/data"), make("living", "lock", "etcd/data"), make("failed", "lock", "failed", "logs/etcd.log")
	lock, err := tryLock(filepath.Join(living, lockName))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	fresh := filepath.Join(t.TempDir(), "fresh")
	write(t, filepath.Join(fresh, "lock"), "")
	for folder, stays := range map[string]bool{dead: false, living: true, failed: true, fresh: true} {
		sweepState(folder)
		if _, err := os.Stat(folder); (err == nil) != stays {
			t.Errorf("%s: %v", filepath.Base(folder), err)
		}
	}
}

func TestAFolderIsOfOneClusterAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := tryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tryLock(path); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("the second lock: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if second, err := tryLock(path); err != nil {
		t.Errorf("the lock of a closed file: %v", err)
	} else {
		_ = second.Close()
	}
}

func TestReservedPortsAreDifferentAndCanBeSharedByTheProgramOnly(t *testing.T) {
	first, err := reservePort()
	if err != nil {
		t.Fatal(err)
	}
	defer first.release()
	second, err := reservePort()
	if err != nil {
		t.Fatal(err)
	}
	defer second.release()
	if first.number == second.number || first.number == 0 {
		t.Errorf("the ports are %d and %d", first.number, second.number)
	}
	listen := func(share bool) error {
		descriptor, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(descriptor)
		if share {
			if err := syscall.SetsockoptInt(descriptor, syscall.SOL_SOCKET, soReusePort, 1); err != nil {
				t.Fatal(err)
			}
		}
		if err := syscall.Bind(descriptor, &syscall.SockaddrInet4{Port: first.number, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			return err
		}
		return syscall.Listen(descriptor, 1)
	}
	if err := listen(true); err != nil {
		t.Errorf("the program cannot listen on its port: %v", err)
	}
	if err := listen(false); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("another program on the port: %v", err)
	}
}

func names(t *testing.T, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}
