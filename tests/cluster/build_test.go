package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func sources(t *testing.T) string {
	t.Helper()
	folder, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CLUSTER_SOURCES", folder)
	return folder
}

func TestTheVersionBuiltInIsTheOneThatTheModuleRequires(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(sources(t), "kubernetes", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(content), "k8s.io/kubernetes "+kubernetesVersion) {
		t.Errorf("kubernetes/go.mod does not require %s", kubernetesVersion)
	}
	staging := "v0" + strings.TrimPrefix(kubernetesVersion, "v1")
	replaces := regexp.MustCompile(`(?m)^\t(k8s\.io/\S+) => (\S+) (\S+)$`).FindAllStringSubmatch(string(content), -1)
	if len(replaces) != 31 {
		t.Errorf("kubernetes/go.mod replaces %d staging modules, not 31", len(replaces))
	}
	for _, replace := range replaces {
		if replace[1] != replace[2] || replace[3] != staging {
			t.Errorf("%s is replaced by %s %s, not by itself at %s", replace[1], replace[2], replace[3], staging)
		}
	}
	if !strings.Contains(kubernetesLdflags, "gitVersion="+kubernetesVersion+" ") || !strings.Contains(kubernetesLdflags, "gitMajor=1 ") || !strings.Contains(kubernetesLdflags, "gitMinor=34 ") {
		t.Errorf("the version is not in %q", kubernetesLdflags)
	}
}

func TestHelmIsOfTheVersionThatItsModuleRequiresAndRendersForOurKubernetes(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(sources(t), "helm", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(content), "helm.sh/helm/v3 "+helmVersion+" ") {
		t.Errorf("helm/go.mod does not require %s", helmVersion)
	}
	for _, wanted := range []string{"version.version=" + helmVersion + " ", "chartutil.k8sVersionMajor=1 ", "chartutil.k8sVersionMinor=34", "rules.k8sVersionMinor=34 "} {
		if !strings.Contains(helmProgram.ldflags, wanted) {
			t.Errorf("%q is not in %q", wanted, helmProgram.ldflags)
		}
	}
}

func TestProgramsAreFoundByNameOrTheirNamesSaid(t *testing.T) {
	for _, name := range []string{"helm", "kubectl", "kubelet"} {
		if found, err := programNamed(name); err != nil || found.name != name {
			t.Errorf("%s is found as %q, %v", name, found.name, err)
		}
	}
	if _, err := programNamed("docker"); err == nil || !strings.Contains(err.Error(), "helm") {
		t.Errorf("docker is refused with %v", err)
	}
	for _, size := range []size{controlPlaneSize, nodeSize} {
		found := false
		for _, program := range programsOf(size) {
			found = found || program.name == "helm"
		}
		if !found {
			t.Errorf("size %s has no helm", size)
		}
	}
}

func TestAChangeOfTheModuleIsAnotherPlaceInTheCache(t *testing.T) {
	t.Setenv("CLUSTER_SOURCES", t.TempDir())
	t.Setenv("XDG_CACHE_HOME", "/cache")
	module := filepath.Join(sourceDirectory(), "etcd")
	write(t, filepath.Join(module, "go.mod"), "module one")
	before, err := etcdProgram.path()
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := etcdProgram.path(); again != before {
		t.Errorf("the same module has two places: %s and %s", before, again)
	}
	if !strings.HasPrefix(before, "/cache/bags-operator/cluster/") || !strings.HasSuffix(before, "/bin/etcd") {
		t.Errorf("unexpected place %s", before)
	}
	write(t, filepath.Join(module, "go.mod"), "module two")
	if after, _ := etcdProgram.path(); after == before {
		t.Error("another module has the same place")
	}
}

func TestAFailureSaysProgramLogLastLinesAndWhatToDo(t *testing.T) {
	log := filepath.Join(t.TempDir(), "etcd.log")
	write(t, log, strings.Repeat("early\n", 50)+"late\n")
	text := failure{doing: "boot", program: "etcd", log: log, hint: "install more memory", cause: errors.New("exit status 2")}.Error()
	for _, wanted := range []string{"failed to boot etcd: exit status 2", log, "late", "install more memory"} {
		if !strings.Contains(text, wanted) {
			t.Errorf("%q is missing from %q", wanted, text)
		}
	}
	if strings.Count(text, "early") > 11 {
		t.Error("more of the log than its end is shown")
	}
}

func TestForwardsAreReadAndRefused(t *testing.T) {
	for text, wanted := range map[string]forward{"8420:8421": {8420, 8421}, "0:80": {0, 80}} {
		if parsed, err := parseForward(text); err != nil || parsed != wanted {
			t.Errorf("%q is read as %v, %v", text, parsed, err)
		}
	}
	for _, text := range []string{"", "8420", "8420:", ":8420", "a:b", "1:2:3", "1:0", "1:65536", "-1:2", "01:2"} {
		if parsed, err := parseForward(text); err == nil {
			t.Errorf("%q is accepted as %v", text, parsed)
		}
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
