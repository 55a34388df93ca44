package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// image is a container image of files of this machine. It is written in the form of `docker save`, which containerd imports: no registry is needed.
type image struct {
	name  string // NAME:TAG
	entry string // path of the program, inside
	files map[string]string
}

// imageUser is nobody in particular: without root, as the restricted level of pod security demands.
const imageUser = "65532:65532"

// newImage adds to the files what their programs load when they start, so that a program need not be linked statically.
func newImage(name, entry string, files map[string]string) (*image, error) {
	if !strings.Contains(name, ":") {
		return nil, fmt.Errorf("the image %q has no tag: call it %s:dev, or the like", name, name)
	}
	if files[entry] == "" {
		return nil, fmt.Errorf("the image %s has no file %s, which is to be its program", name, entry)
	}
	complete := &image{name: name, entry: entry, files: map[string]string{}}
	for inside, outside := range files {
		if !path.IsAbs(inside) || path.Clean(inside) != inside {
			return nil, fmt.Errorf("%q is not an absolute path inside the image", inside)
		}
		complete.files[inside] = outside
		if err := complete.addLibraries(outside); err != nil {
			return nil, err
		}
	}
	return complete, nil
}

// addLibraries adds the loader and the shared libraries that a dynamically linked program names, and those that they name.
func (i *image) addLibraries(file string) error {
	program, err := elf.Open(file)
	if err != nil {
		var format *elf.FormatError
		if errors.As(err, &format) || errors.Is(err, io.EOF) {
			return nil // not a program
		}
		return fmt.Errorf("failed to read %s for the image %s: %w", file, i.name, err)
	}
	defer program.Close()
	var found []string
	for _, segment := range program.Progs {
		if segment.Type == elf.PT_INTERP {
			loader, err := io.ReadAll(segment.Open())
			if err != nil {
				return fmt.Errorf("failed to read the loader of %s: %w", file, err)
			}
			found = append(found, string(bytes.TrimRight(loader, "\x00")))
		}
	}
	names, err := program.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("failed to read the libraries of %s: %w", file, err)
	}
	for _, name := range names {
		library, err := findLibrary(name)
		if err != nil {
			return fmt.Errorf("failed to complete %s for the image %s: %w", file, i.name, err)
		}
		found = append(found, library)
	}
	for _, library := range found {
		if i.files[library] == "" {
			i.files[library] = library
			if err := i.addLibraries(library); err != nil {
				return err
			}
		}
	}
	return nil
}

// findLibrary looks where the loader looks by default, so that it finds the library at the same path inside the image.
func findLibrary(name string) (string, error) {
	triplet := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[runtime.GOARCH]
	folders := []string{"/lib/" + triplet, "/usr/lib/" + triplet, "/lib64", "/usr/lib64", "/lib", "/usr/lib"}
	for _, folder := range folders {
		candidate := filepath.Join(folder, name)
		if _, err := os.Stat(candidate); err == nil {
			return candidate, nil
		}
	}
	return "", fmt.Errorf("the library %s is in none of %s: link the program statically", name, strings.Join(folders, ", "))
}

// write writes the image as a docker archive: one layer, a configuration, a manifest.
func (i *image) write(writer io.Writer) error {
	var layer bytes.Buffer
	if err := i.writeLayer(&layer); err != nil {
		return err
	}
	type object map[string]any
	config, err := json.Marshal(object{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       object{"Entrypoint": []string{i.entry}, "User": imageUser, "Env": []string{"PATH=/bin"}, "WorkingDir": "/"},
		"rootfs":       object{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer.Bytes()))}},
	})
	if err != nil {
		return fmt.Errorf("failed to encode the image %s: %w", i.name, err)
	}
	configName := fmt.Sprintf("%x.json", sha256.Sum256(config))
	manifest, err := json.Marshal([]object{{"Config": configName, "RepoTags": []string{i.name}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return fmt.Errorf("failed to encode the image %s: %w", i.name, err)
	}
	archive := tar.NewWriter(writer)
	for _, part := range []struct {
		name    string
		content []byte
	}{{"layer.tar", layer.Bytes()}, {configName, config}, {"manifest.json", manifest}} {
		if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: part.name, Mode: 0o644, Size: int64(len(part.content))}); err != nil {
			return fmt.Errorf("failed to write the image %s: %w", i.name, err)
		}
		if _, err := archive.Write(part.content); err != nil {
			return fmt.Errorf("failed to write the image %s: %w", i.name, err)
		}
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("failed to write the image %s: %w", i.name, err)
	}
	return nil
}

func (i *image) writeLayer(writer io.Writer) error {
	layer := tar.NewWriter(writer)
	folders := map[string]bool{}
	for inside := range i.files {
		for folder := path.Dir(inside); folder != "/"; folder = path.Dir(folder) {
			folders[folder] = true
		}
	}
	for _, folder := range slices.Sorted(maps.Keys(folders)) {
		if err := layer.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: folder[1:] + "/", Mode: 0o755}); err != nil {
			return fmt.Errorf("failed to write the image %s: %w", i.name, err)
		}
	}
	for _, inside := range slices.Sorted(maps.Keys(i.files)) {
		if err := addFile(layer, inside, i.files[inside]); err != nil {
			return fmt.Errorf("failed to put %s into the image %s: %w", i.files[inside], i.name, err)
		}
	}
	return layer.Close()
}

func addFile(layer *tar.Writer, inside, outside string) error {
	file, err := os.Open(outside)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a file")
	}
	mode := int64(0o444)
	if info.Mode()&0o111 != 0 {
		mode = 0o555
	}
	if err := layer.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: inside[1:], Mode: mode, Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(layer, file)
	return err
}
