package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAnImageHoldsItsFilesAndADigestThatFits(t *testing.T) {
	program, data := filepath.Join(t.TempDir(), "program"), filepath.Join(t.TempDir(), "data")
	write(t, program, "#!/bin/nothing")
	write(t, data, "some data")
	if err := os.Chmod(program, 0o700); err != nil {
		t.Fatal(err)
	}
	image, err := newImage("thing:dev", "/bin/thing", map[string]string{"/bin/thing": program, "/etc/thing/data": data})
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := image.write(&archive); err != nil {
		t.Fatal(err)
	}
	outer := untar(t, &archive)
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	if err := json.Unmarshal(outer["manifest.json"].content, &manifest); err != nil {
		t.Fatal(err)
	}
	if manifest[0].RepoTags[0] != "thing:dev" {
		t.Errorf("the image is called %s", manifest[0].RepoTags[0])
	}
	layer := outer[manifest[0].Layers[0]].content
	if config := string(outer[manifest[0].Config].content); !strings.Contains(config, fmt.Sprintf("sha256:%x", sha256.Sum256(layer))) || !strings.Contains(config, `"User":"65532:65532"`) {
		t.Errorf("unexpected configuration %s", config)
	}
	inner := untar(t, bytes.NewReader(layer))
	if file := inner["bin/thing"]; file.mode != 0o555 || string(file.content) != "#!/bin/nothing" {
		t.Errorf("the program is %o %q: everybody must be able to run it", file.mode, file.content)
	}
	if file := inner["etc/thing/data"]; file.mode != 0o444 || string(file.content) != "some data" {
		t.Errorf("the data is %o %q", file.mode, file.content)
	}
	if _, found := inner["etc/thing/"]; !found {
		t.Error("the folder of the data is missing")
	}
}

func TestAnImageOfADynamicProgramHasItsLoaderAndLibraries(t *testing.T) {
	image, err := newImage("sh:dev", "/bin/sh", map[string]string{"/bin/sh": "/bin/sh"})
	if err != nil {
		t.Skipf("this machine's /bin/sh is not one to try it on: %v", err)
	}
	var names []string
	for inside := range image.files {
		names = append(names, filepath.Base(inside))
	}
	if all := strings.Join(names, " "); len(names) > 1 && (!strings.Contains(all, "libc.so") || !strings.Contains(all, "ld-linux")) {
		t.Errorf("the image has only %s", all)
	}
}

func TestAnImageWithoutTagProgramOrAbsolutePathsIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "x")
	for _, refused := range []struct {
		name, entry string
		files       map[string]string
	}{
		{"thing", "/bin/thing", map[string]string{"/bin/thing": file}},
		{"thing:dev", "/bin/other", map[string]string{"/bin/thing": file}},
		{"thing:dev", "bin/thing", map[string]string{"bin/thing": file}},
		{"thing:dev", "/bin/../thing", map[string]string{"/bin/../thing": file}},
		{"thing:dev", "/bin/thing", map[string]string{"/bin/thing": file + ".none"}},
	} {
		if _, err := newImage(refused.name, refused.entry, refused.files); err == nil {
			t.Errorf("%+v is accepted", refused)
		}
	}
}

type tarred struct {
	mode    int64
	content []byte
}

func untar(t *testing.T, reader io.Reader) map[string]tarred {
	t.Helper()
	files := map[string]tarred{}
	archive := tar.NewReader(reader)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name] = tarred{header.Mode, content}
	}
}
