//go:build compose

package compose

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/tests/integration/mesh"
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		stop, err := daemon()
		if err == nil {
			defer stop()
			err = images()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// tools is where tests/tools/build.sh puts what it builds.
func tools() string {
	if dir := os.Getenv("BOLTMESH_TOOLS"); dir != "" {
		return dir
	}
	dir, _ := filepath.Abs("../../.cache/tools") // fails only where there is no working directory
	return dir
}

func composeProgram() string { return filepath.Join(tools(), "compose") }

// daemon makes sure that there is a Docker to talk to. Where none runs, root starts one for as long as the tests take; its images are kept beside the tools.
func daemon() (stop func(), err error) {
	if exec.Command("docker", "info").Run() == nil {
		return func() {}, nil
	}
	if err := installed("docker", "dockerd"); err != nil {
		return nil, err
	}
	if os.Getuid() != 0 {
		return nil, errors.New("no Docker answers: start its daemon, or run this as root, which starts one")
	}
	dir := filepath.Join(filepath.Dir(tools()), "docker")
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "dockerd.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command("dockerd", "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "dockerd.pid"))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start dockerd: %w", err)
	}
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // whatever it says: it is gone
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := mesh.Until(ctx, func(ctx context.Context) error { return exec.CommandContext(ctx, "docker", "info").Run() }); err != nil {
		stop()
		return nil, fmt.Errorf("dockerd does not answer, see %s: %w", log.Name(), err)
	}
	return stop, nil
}

// images makes what the compose files name: the servers by forge.sh, the services by the Dockerfile. convert is made twice, once under another version.
func images() error {
	if os.Getenv("BOLTMESH_TEST_IMAGES") == "keep" {
		fmt.Println("BOLTMESH_TEST_IMAGES=keep: the images of an earlier run are used, whatever has been changed since")
		return nil
	}
	began := time.Now()
	forge := exec.Command("nice", "./forge.sh")
	forge.Stdout, forge.Stderr = os.Stdout, os.Stderr
	if err := forge.Run(); err != nil {
		return fmt.Errorf("forge.sh: %w", err)
	}
	fmt.Printf("%7.1fs the servers' images are here\n", time.Since(began).Seconds())
	s := &stack{files: []string{"compose.yaml"}}
	// One after the other: what the first has compiled the others find.
	for _, service := range append(mesh.Kinds[:], "apply") {
		if err := build(s, service, "test"); err != nil {
			return err
		}
	}
	if err := build(s, "convert", "upgraded"); err != nil {
		return err
	}
	fmt.Printf("%7.1fs the services' images are built\n", time.Since(began).Seconds())
	return nil
}

func build(s *stack, service, version string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	_, err := s.compose(ctx, []string{"BOLTMESH_VERSION=" + version}, "build", service)
	return err
}

// hasImage tells whether the image that the compose file gives a service is here.
func hasImage(t *testing.T, service string) bool {
	t.Helper()
	file := readCompose(t, "compose.yaml")
	image := file.Services[service].Image
	if image == "" || strings.Contains(image, "$") {
		t.Fatalf("%s: image %q", service, image)
	}
	return exec.Command("docker", "image", "inspect", image).Run() == nil
}
