package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/marchesud/perenne/archive/archivetest"
	"github.com/marchesud/perenne/cmd/perenne/samples"
	"github.com/marchesud/perenne/storage/s3/s3test"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"perenne": main, "stubborn": stubborn})
}

// TestTranscripts runs the command line as people use it: real daemons on loopback, real files.
func TestTranscripts(t *testing.T) { transcripts(t, "testdata/script", "") }

// TestTranscriptsOnS3 does the same on real S3 servers.
func TestTranscriptsOnS3(t *testing.T) {
	for _, kind := range s3test.Kinds {
		t.Run(kind, func(t *testing.T) {
			if !s3test.Installed(kind) {
				t.Skip(s3test.ErrMissing)
			}
			transcripts(t, "testdata/s3", kind)
		})
	}
}

func transcripts(t *testing.T, dir, server string) {
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("LANG", "it_IT.UTF-8")
			e.Setenv("HOME", e.WorkDir)
			if server != "" {
				if err := startS3(e, server); err != nil {
					return err
				}
			}
			return writeDocuments(e.WorkDir)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"code":     wantCode,
			"flip":     flip,
			"capture":  capture,
			"init":     initInstallation,
			"takeover": takeOver,
			"assail":   assail,
			"appears":  func(ts *testscript.TestScript, _ bool, args []string) { awaitFile(ts, args[0], true) },
			"vanishes": func(ts *testscript.TestScript, _ bool, args []string) { awaitFile(ts, args[0], false) },
		},
	})
}

// writeDocuments writes documents into the folder of a transcript.
func writeDocuments(dir string) error {
	units := samples.All(1, time.Date(2026, 3, 9, 0, 0, 0, 0, time.UTC))
	files := map[string][]byte{"computo.xml": []byte("<?xml version=\"1.0\"?>\n<computo><voce importo=\"100.00\">Scavo</voce></computo>\n")}
	r := units[0].Files[0].Open()
	defer r.Close()
	pdf, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	files["determina.pdf"], files["altra.pdf"] = pdf, archivetest.PDF("altra")
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// initInstallation makes an installation in the folder given, with one producer, on a free port.
func initInstallation(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(ts.Exec("perenne", append([]string{
		"init", "--dir", args[0], "--listen", "127.0.0.1:0", "--immutable", "off",
		"--producer", "c_x901", "--name", "Comune di Montesole", "--tax-code", "00000000000",
		"--responsible", "Persona Inventata", "--responsible-tax-code", "NVNPSN80A01X901A",
		"--appointment", "Decreto n. 1 del 2 gennaio 2026", "--appointed", "2026-01-02",
		"--manual", "Manuale di conservazione, versione 1.0",
	}, args[1:]...)...))
}

// startS3 starts a real server for a transcript, and names its bucket in the variables that the commands read.
func startS3(e *testscript.Env, kind string) error {
	server, err := s3test.Run(context.Background(), kind, filepath.Join(e.WorkDir, "server"))
	if err != nil {
		return err
	}
	e.Defer(func() { _ = server.Kill() })
	secret := filepath.Join(e.WorkDir, "s3.secret")
	for name, value := range map[string]string{
		"URL": "http://" + server.Endpoint, "BUCKET": server.Bucket, "ACCESS_KEY": server.AccessKey, "SECRET_FILE": secret,
	} {
		e.Setenv("PERENNE_S3_"+name, value)
	}
	return os.WriteFile(secret, []byte(server.SecretKey+"\n"), 0o600)
}

// assail tries, with the keys of the server's own administrator, to remove the first object under a prefix, or to
// shorten or weaken its lock; it fails if the server lets it.
func assail(ts *testscript.TestScript, _ bool, args []string) {
	ctx := context.Background()
	u, err := url.Parse(ts.Getenv("PERENNE_S3_URL"))
	ts.Check(err)
	client, err := minio.New(u.Host, &minio.Options{Creds: credentials.NewStaticV4(ts.Getenv("PERENNE_S3_ACCESS_KEY"), strings.TrimSpace(ts.ReadFile("s3.secret")), "")})
	ts.Check(err)
	bucket := ts.Getenv("PERENNE_S3_BUCKET")
	list, stop := context.WithCancel(ctx)
	defer stop()
	o, ok := <-client.ListObjects(list, bucket, minio.ListObjectsOptions{Prefix: args[0], Recursive: true, WithVersions: true})
	if !ok {
		ts.Fatalf("no object under %s", args[0])
	}
	ts.Check(o.Err)
	before, err := client.StatObject(ctx, bucket, o.Key, minio.StatObjectOptions{VersionID: o.VersionID})
	ts.Check(err)
	soon, governance, compliance := time.Now().Add(time.Hour).UTC().Truncate(time.Second), minio.Governance, minio.Compliance
	until, err := time.Parse(time.RFC3339, before.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date"))
	ts.Check(err)
	for what, err := range map[string]error{
		"delete":             client.RemoveObject(ctx, bucket, o.Key, minio.RemoveObjectOptions{VersionID: o.VersionID}),
		"delete with bypass": client.RemoveObject(ctx, bucket, o.Key, minio.RemoveObjectOptions{VersionID: o.VersionID, GovernanceBypass: true}),
		"shorten": client.PutObjectRetention(ctx, bucket, o.Key, minio.PutObjectRetentionOptions{
			VersionID: o.VersionID, Mode: &compliance, RetainUntilDate: &soon, GovernanceBypass: true,
		}),
		"weaken": client.PutObjectRetention(ctx, bucket, o.Key, minio.PutObjectRetentionOptions{
			VersionID: o.VersionID, Mode: &governance, RetainUntilDate: &until, GovernanceBypass: true,
		}),
	} {
		if err == nil {
			ts.Fatalf("%s of %s: the server let it", what, o.Key)
		}
		ts.Logf("%s of %s: %v", what, o.Key, err)
	}
	after, err := client.StatObject(ctx, bucket, o.Key, minio.StatObjectOptions{VersionID: o.VersionID})
	ts.Check(err)
	for _, h := range []string{"X-Amz-Object-Lock-Mode", "X-Amz-Object-Lock-Retain-Until-Date"} {
		if b, a := before.Metadata.Get(h), after.Metadata.Get(h); a != b || a == "" {
			ts.Fatalf("%s of %s: was %q, is %q", h, o.Key, b, a)
		}
	}
}

// wantCode runs a command and wants exactly this exit code: code 64 perenne …
func wantCode(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = regexp.MustCompile(`\d+`).FindString(err.Error())
	}
	if got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

// awaitFile waits until a file is there, or until it is not.
func awaitFile(ts *testscript.TestScript, name string, want bool) {
	for range 300 {
		if _, err := os.Stat(ts.MkAbs(name)); (err == nil) == want {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	ts.Fatalf("%s: there = %t for half a minute", name, !want)
}

// flip changes one bit in the middle of the only file that matches a pattern.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	names, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(names) == 0 {
		ts.Fatalf("no file %s", args[0])
	}
	b, err := os.ReadFile(names[0])
	ts.Check(err)
	b[len(b)/2] ^= 1
	ts.Check(os.Remove(names[0]))
	ts.Check(os.WriteFile(names[0], b, 0o444))
}

// capture sets a variable to the first match of a pattern in the last output: capture ID 'id ([a-z2-7]+)'
func capture(ts *testscript.TestScript, neg bool, args []string) {
	m := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if m == nil {
		ts.Fatalf("no match for %s", args[1])
	}
	ts.Setenv(args[0], m[len(m)-1])
}

// TestReadmeIsTrue runs the commands that the README and the LEGGIMI show, literally, in a shell.
func TestReadmeIsTrue(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"README.md", "LEGGIMI.md"} {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("..", "..", name))
			if err != nil {
				t.Fatal(err)
			}
			block := regexp.MustCompile("(?s)<!-- transcript -->\n```sh\n(.*?)```").FindSubmatch(text)
			if block == nil {
				t.Fatal("no transcript in it")
			}
			dir := t.TempDir()
			if err := writeDocuments(dir); err != nil {
				t.Fatal(err)
			}
			bin := t.TempDir()
			// testscript.Main runs the command whose name argv[0] has.
			if err := os.Symlink(self, filepath.Join(bin, "perenne")); err != nil {
				t.Fatal(err)
			}
			script := "set -e\ntrap 'kill $!' EXIT\n" + string(block[1])
			cmd := exec.Command("sh", "-c", script)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "LANG=it_IT.UTF-8", "PERENNE_IMMUTABLE=off", "PERENNE_LISTEN=127.0.0.1:0")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range []string{"accettato  c_x901 DETE 2026/12", "sigillato", "integro  c_x901", "valido  rdv-DETE-2026-12.json", "valido  copy.zip", "valido  report.asice"} {
				if !strings.Contains(string(out), want) {
					t.Errorf("the output lacks %q:\n%s", want, out)
				}
			}
		})
	}
}

// stubborn is a program that is told to stop and does not.
func stubborn() {
	ctx, stop := untilTold()
	defer stop()
	fmt.Println("ready")
	<-ctx.Done()
	fmt.Println("told")
	select {}
}

// stub starts stubborn, waits until it is ready, tells it to stop, and waits until it was told.
func stub(t *testing.T, signal syscall.Signal) (cmd *exec.Cmd, ended chan error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = &exec.Cmd{Path: self, Args: []string{"stubborn"}}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for _, want := range []string{"ready", "told"} {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("got %q, want %s", lines.Text(), want)
		}
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
	}
	ended = make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return cmd, ended
}

// TestTheSecondCtrlCEndsAtOnce sends signals to a program that ignores the first.
func TestTheSecondCtrlCEndsAtOnce(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(signal.String(), func(t *testing.T) {
			cmd, ended := stub(t, signal)
			for {
				select {
				case <-ended:
					if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != signal {
						t.Errorf("it ended with %v, want %v", cmd.ProcessState, signal)
					}
					return
				case <-time.After(100 * time.Millisecond):
					_ = cmd.Process.Signal(signal) // the first of these may be an echo
				}
			}
		})
	}
}

// TestASignalThatComesSeveralTimesIsOne sends what the kernel sends to the child of a process that dies thread by thread.
func TestASignalThatComesSeveralTimesIsOne(t *testing.T) {
	cmd, ended := stub(t, syscall.SIGTERM)
	for began := time.Now(); time.Since(began) < echo/2; {
		select {
		case err := <-ended:
			t.Fatalf("a signal sent several times ended it: %v", err)
		case <-time.After(10 * time.Millisecond):
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("it ended by itself")
	}
}

// TestFlagsBehindArguments holds the reordering that urfave/cli v2 needs.
func TestFlagsBehindArguments(t *testing.T) {
	app := newApp()
	for _, c := range []struct{ in, want string }{
		{"perenne submit a.pdf --dir p --attachment b.xml", "perenne submit --dir p --attachment b.xml -- a.pdf"},
		{"perenne submit --reserved a.pdf --dir=p", "perenne submit --reserved --dir=p -- a.pdf"},
		{"perenne keys export --dir p --out f", "perenne keys export --dir p --out f"},
		{"perenne verify x --trust t -- --odd", "perenne verify --trust t -- x --odd"},
		{"perenne --lang it status", "perenne status --lang it"},
		{"perenne --dir p token --lang=en add --name x", "perenne token add --dir p --lang=en --name x"},
		{"perenne --version", "perenne --version"},
		{"perenne help submit", "perenne -- help submit"},
	} {
		got, err := flagsFirst(app, strings.Fields(c.in))
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("flagsFirst(%s) = %s, %v, want %s", c.in, strings.Join(got, " "), err, c.want)
		}
	}
	if _, err := flagsFirst(app, strings.Fields("perenne submit a.pdf --dir")); exitCode(err) != exitUsage {
		t.Errorf("a flag without its value: got %v, want a usage error", err)
	}
}

// TestExamplesInHelpNameRealFlags keeps help and program together.
func TestExamplesInHelpNameRealFlags(t *testing.T) {
	for _, c := range newApp().Commands {
		if c.Hidden {
			continue
		}
		known := map[string]bool{"help": true}
		for _, f := range c.Flags {
			for _, n := range f.Names() {
				known[n] = true
			}
		}
		for _, sub := range c.Subcommands {
			for _, f := range sub.Flags {
				for _, n := range f.Names() {
					known[n] = true
				}
			}
		}
		for _, line := range strings.Split(c.CustomHelpTemplate, "\n") {
			if !strings.Contains(line, "perenne "+c.Name) {
				continue
			}
			for _, m := range regexp.MustCompile(`--([a-z0-9-]+)`).FindAllStringSubmatch(line, -1) {
				if !known[m[1]] {
					t.Errorf("help of %s shows --%s, which it does not know", c.Name, m[1])
				}
			}
		}
	}
}
