package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestAnImageIsWrittenIntoAFileAsDockerSaveDoes(t *testing.T) {
	folder := t.TempDir()
	write(t, filepath.Join(folder, "program"), "#!/bin/sh\n")
	archive := filepath.Join(folder, "image.tar")
	err := imageCommand(context.Background(), []string{"--archive", archive, "--name", "test:dev", "--entry", "/bin/program", filepath.Join(folder, "program") + "=/bin/program"})
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for reader := tar.NewReader(bytes.NewReader(content)); ; {
		header, err := reader.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
	}
	if len(names) != 3 || !slices.Contains(names, "manifest.json") || !slices.Contains(names, "layer.tar") {
		t.Errorf("the archive holds %q", names)
	}
}

func TestAnImageGoesIntoAClusterOrIntoAFile(t *testing.T) {
	for _, places := range [][]string{{}, {"--state", "a", "--archive", "b"}} {
		err := imageCommand(context.Background(), append(places, "--name", "test:dev", "--entry", "/bin/program", "program=/bin/program"))
		var status exitStatus
		if !errors.As(err, &status) || status != 2 {
			t.Errorf("%q is answered with %v", places, err)
		}
	}
}
