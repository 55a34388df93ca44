package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// state is the folder of one cluster: its data, certificates, logs. It is locked while the cluster lives.
//
// Three come by to see that nothing stays behind: the tool itself when it stops; the janitor, a process that waits for the tool's death however that
// comes; and, should both have been killed, the next cluster to start.
type state struct {
	folder string
	// automatic: the folder was made by us and goes with the cluster. Of a folder that the caller named, the logs stay.
	automatic bool
	// controlGroup is the name of the control group under which a node puts its pods; control groups have no namespace that would end them with the rest.
	controlGroup string
	lock         *os.File
	janitor      *exec.Cmd
	janitorPipe  io.Closer
}

// What a cluster makes in its folder. Anything else there is not ours to remove.
var stateEntries = []string{"pki", "etcd", "config", "images", "kubeconfig", "kubeconfig.inside", "cluster.json"}

const (
	lockName   = "lock"
	logsName   = "logs"
	failedName = "failed" // the cluster did not boot: its logs are kept for a day
)

func (s *state) path(elements ...string) string {
	return filepath.Join(append([]string{s.folder}, elements...)...)
}

// openState locks a folder for a new cluster, one of our own if none is named, and removes what dead clusters have left there.
func openState(folder string) (*state, error) {
	s := &state{folder: folder, automatic: folder == "", controlGroup: controlGroupName(os.Getpid())}
	var err error
	if s.automatic {
		s.folder, err = newStateFolder()
	} else {
		s.folder, err = filepath.Abs(folder)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to make a folder for the cluster: %w", err)
	}
	if err := os.MkdirAll(s.folder, 0o700); err != nil {
		return nil, fmt.Errorf("failed to make the folder of the cluster: %w", err)
	}
	s.lock, err = tryLock(s.path(lockName))
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("a cluster is running in %s already: choose another --state", s.folder)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to lock the folder of the cluster: %w", err)
	}
	sweepControlGroups()
	if err := removeState(s.folder, false); err != nil {
		return nil, err
	}
	return s, s.startJanitor()
}

// close removes what the cluster made, except the logs of one that did not boot.
func (s *state) close(booted bool) {
	if !booted {
		if err := os.WriteFile(s.path(failedName), nil, 0o600); err != nil {
			say("failed to mark %s to be kept: %v", s.folder, err)
		}
	}
	if err := finishState(s.folder, s.automatic, s.controlGroup); err != nil {
		say("%v", err)
	}
	_ = s.lock.Close()
	_ = s.janitorPipe.Close()
	_ = s.janitor.Wait()
}

// startJanitor runs `cluster janitor` in a session of its own, so that what kills our process group does not reach it; it ends when we do.
func (s *state) startJanitor() error {
	reader, writer, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("failed to make a pipe: %w", err)
	}
	defer reader.Close()
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("failed to find the path of this program: %w", err)
	}
	s.janitor = exec.Command(executable, "janitor", s.folder, s.controlGroup, fmt.Sprint(s.automatic))
	s.janitor.Dir = "/"
	s.janitor.Stdin = reader
	s.janitor.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := s.janitor.Start(); err != nil {
		return fmt.Errorf("failed to start the janitor: %w", err)
	}
	s.janitorPipe = writer
	return nil
}

func janitorCommand(_ context.Context, arguments []string) error {
	if len(arguments) != 3 {
		return fmt.Errorf("janitor is started by the tool itself")
	}
	// At the end of input the tool is dead. Signals are for it, not for us: the context that they cancel is not looked at.
	_, _ = io.Copy(io.Discard, os.Stdin)
	// The kernel closes the files of a dying process one after the other, the lock perhaps after our pipe.
	patience, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	lock, err := lockFile(patience, filepath.Join(arguments[0], lockName))
	if err != nil {
		return nil // the folder is gone, or another cluster has it already and has swept
	}
	defer lock.Close()
	return finishState(arguments[0], arguments[2] == "true", arguments[1])
}

// finishState removes everything of a cluster whose processes are dead or dying.
func finishState(folder string, automatic bool, controlGroup string) error {
	if err := removeControlGroups(controlGroup); err != nil {
		return err
	}
	_, failed := os.Stat(filepath.Join(folder, failedName))
	return removeState(folder, automatic && failed != nil)
}

// removeState removes our files from the folder; with all, the logs and the folder too.
func removeState(folder string, all bool) error {
	entries := stateEntries
	if all {
		entries = append(slices.Clone(entries), logsName, failedName, lockName)
	}
	var failure error
	for _, entry := range entries {
		path := filepath.Join(folder, entry)
		// A program that dies at this moment may still add a file to a folder that is being removed.
		for range 50 {
			if failure = os.RemoveAll(path); failure == nil {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		if failure != nil {
			return fmt.Errorf("failed to remove %s: %w", path, failure)
		}
	}
	if all {
		if err := os.Remove(folder); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("failed to remove %s: %w", folder, err)
		}
	}
	return nil
}

// newStateFolder makes a folder below one that only this user can write, and removes those of clusters that died together with their janitor.
func newStateFolder() (string, error) {
	root := filepath.Join(os.TempDir(), fmt.Sprintf("bags-cluster-%d", os.Getuid()))
	if err := os.Mkdir(root, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	info, err := os.Lstat(root)
	if err != nil {
		return "", err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(owner.Uid) != os.Getuid() || info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s is not a folder that only this user can enter: remove it, or set TMPDIR", root)
	}
	folders, err := os.ReadDir(root)
	if err != nil {
		return "", err
	}
	for _, folder := range folders {
		sweepState(filepath.Join(root, folder.Name()))
	}
	return os.MkdirTemp(root, "")
}

func sweepState(folder string) {
	const keepLogs, settle = 24 * time.Hour, time.Minute
	info, err := os.Stat(folder)
	// A folder without a lock may be one that another run is about to lock.
	if err != nil || time.Since(info.ModTime()) < settle {
		return
	}
	if info, err := os.Stat(filepath.Join(folder, failedName)); err == nil && time.Since(info.ModTime()) < keepLogs {
		return
	}
	lock, err := tryLock(filepath.Join(folder, lockName))
	if err != nil {
		return
	}
	defer lock.Close()
	if err := removeState(folder, true); err != nil {
		say("%v", err)
	}
}

func controlGroupName(pid int) string {
	return fmt.Sprintf("bags-cluster-%d-%s", pid, processStart(pid))
}

// tryLock locks a file until it is closed or this process ends; EWOULDBLOCK says that another process has it.
func tryLock(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// lockFile waits for the lock.
func lockFile(ctx context.Context, path string) (*os.File, error) {
	for {
		file, err := tryLock(path)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return file, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}
