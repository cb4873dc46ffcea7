package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/cmd/perenne/bench"
)

func benchCommand() *cli.Command {
	return command(&cli.Command{
		Name: "bench", Usage: "measure this machine and store, in a temporary installation that is removed afterwards",
		Flags: append([]cli.Flag{
			langFlag(),
			&cli.StringFlag{Name: "store", Value: os.TempDir(), Usage: "folder on the file system to measure; a folder is made in it, and removed"},
			&cli.StringFlag{Name: "sizes", Value: "10KB,100KB,1MB", Usage: "sizes of a document, such as 10KB,1MB,1GiB"},
			&cli.IntFlag{Name: "clients", Value: 32, Usage: "that submit at once"},
			&cli.IntFlag{Name: "producers", Value: 1, Usage: "bodies whose documents they are, 1 to 64"},
			&cli.IntFlag{Name: "rounds", Value: 3, Usage: "of archive and yardstick, in turn"},
			&cli.DurationFlag{Name: "duration", Value: 5 * time.Second, Usage: "of a round, at most"},
			&cli.Int64Flag{Name: "count", Usage: "documents of a round, at most; 0 for as many as there is time"},
			&cli.BoolFlag{Name: "json", Usage: "print the figures as JSON"},
			&cli.StringFlag{Name: "seal-key", Usage: "FILE in PEM with the key and certificates to seal with, such as RSA; by default a new P-256 key"},
			&cli.StringFlag{Name: "seal-ca", Usage: "FILE with the root of --seal-key"},
			&cli.StringFlag{Name: "tsa", Usage: "URL of a timestamp authority; by default one in this process"},
			&cli.StringFlag{Name: "tsa-ca", Usage: "FILE with the root of --tsa"},
			&cli.StringFlag{Name: "profile", Usage: "FOLDER for profiles of processor, locks and waiting, in the format of pprof"},
		}, s3Flags()...),
		Action: benchAction,
	}, `perenne bench
perenne bench --store /srv/disk --sizes 10KB,1GiB --json
perenne bench --seal-key seal.pem --seal-ca root.pem --tsa https://tsa.example/ --tsa-ca tsa-root.pem
perenne bench --s3-url http://127.0.0.1:9000 --s3-bucket throwaway --s3-access-key k --s3-secret-file k.secret`)
}

// benchRow is one line of the outcome.
type benchRow struct {
	What   string  `json:"what"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Target float64 `json:"target,omitempty"` // 0: for information
	Met    *bool   `json:"met,omitempty"`
	Note   string  `json:"note,omitempty"`
	*bench.Comparison
}

// benchOutcome is what --json prints.
type benchOutcome struct {
	Program    string     `json:"program"`
	System     string     `json:"system"`
	Processors int        `json:"processors"`
	Store      string     `json:"store"`
	Command    string     `json:"command"`
	Began      time.Time  `json:"began"`
	Rows       []benchRow `json:"rows"`
}

// measurement is one run of perenne bench.
type measurement struct {
	lang     paper.Lang
	load     bench.Load
	rounds   int
	root     string    // removed at the end
	bucket   *S3Config // nil: folders under root
	secrets  bucketSecrets
	signers  benchSigners
	progress io.Writer
	series   bench.Series
	outcome  benchOutcome
}

func benchAction(c *cli.Context) (err error) {
	sizes, err := parseSizes(c.String("sizes"))
	if err != nil {
		return err
	}
	m := &measurement{
		lang: lang(c), rounds: c.Int("rounds"), progress: c.App.ErrWriter,
		load: bench.Load{Clients: c.Int("clients"), Duration: c.Duration("duration"), Documents: c.Int64("count"), Bytes: 1 << 29},
		outcome: benchOutcome{
			Program: "perenne " + version, System: runtime.GOOS + "/" + runtime.GOARCH + " " + runtime.Version(), Processors: runtime.GOMAXPROCS(0),
			Store: c.String("store"), Command: strings.Join(append([]string{"perenne"}, os.Args[1:]...), " "), Began: time.Now().UTC().Truncate(time.Second),
		},
	}
	for i := range c.Int("producers") {
		m.load.Producers = append(m.load.Producers, fmt.Sprintf("c_b%03d", i))
	}
	if n := len(m.load.Producers); n < 1 || n > 64 || m.load.Clients < 1 || m.rounds < 1 || m.load.Duration <= 0 {
		return usageIn("--producers da 1 a 64; --clients, --rounds e --duration maggiori di zero", "--producers from 1 to 64; --clients, --rounds and --duration above zero")
	}
	if m.bucket, m.secrets, err = s3FromFlags(c); err != nil {
		return err
	}
	if m.signers, err = signersFromFlags(c); err != nil {
		return err
	}
	if m.bucket != nil {
		m.outcome.Store = m.bucket.URL + "/" + m.bucket.Bucket
	}
	if m.root, err = os.MkdirTemp(c.String("store"), ".perenne-bench-*"); err != nil {
		return usageIn("--store: %v", "--store: %v", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(m.root)) }()
	if m.root, err = filepath.Abs(m.root); err != nil {
		return err
	}
	stop, err := profile(c.String("profile"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	defer spare()() // as serve does
	if err := m.measure(c.Context, sizes); err != nil {
		return err
	}
	if c.Bool("json") {
		e := json.NewEncoder(c.App.Writer)
		e.SetIndent("", "  ")
		return e.Encode(m.outcome)
	}
	m.table(c.App.Writer)
	return nil
}

// add notes a row; atLeast says on which side of its target it should be.
func (m *measurement) add(r benchRow, atLeast bool) {
	if r.Target > 0 {
		met := r.Value >= r.Target
		if !atLeast {
			met = r.Value <= r.Target
		}
		r.Met = &met
	}
	m.outcome.Rows = append(m.outcome.Rows, r)
}

func (m *measurement) table(w io.Writer) {
	fmt.Fprintf(w, "%s, %s, %d processors, %s\n\n", m.outcome.Program, m.outcome.System, m.outcome.Processors, m.outcome.Store)
	for _, r := range m.outcome.Rows {
		verdict := ""
		if r.Met != nil {
			verdict = m.lang.T("raggiunto", "met")
			if !*r.Met {
				verdict = m.lang.T("MANCATO", "MISSED")
			}
			verdict = fmt.Sprintf("%s (%g)", verdict, r.Target)
		}
		fmt.Fprintf(w, "%-24s %10.2f %-8s %-16s %s\n", r.What, r.Value, r.Unit, verdict, r.Note)
	}
}

// parseSizes reads a list such as 10KB,1MiB.
func parseSizes(text string) ([]int64, error) {
	var sizes []int64
	for _, part := range strings.Split(text, ",") {
		n, err := strconv.ParseInt(strings.TrimRight(part, "KMGiB"), 10, 64)
		unit, known := map[string]int64{"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[strings.TrimLeft(part, "0123456789")]
		if err != nil || !known || n < 1 || n > 1<<20 || n*unit < 512 || n*unit > 16<<30 {
			return nil, usageIn("--sizes: %q non è una dimensione fra 512B e 16GiB, come 10KB", "--sizes: %q is no size from 512B to 16GiB, such as 10KB", part)
		}
		sizes = append(sizes, n*unit)
	}
	return sizes, nil
}

func sizeName(n int64) string {
	for _, u := range []struct {
		name string
		unit int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"KB", 1e3}} {
		if n%u.unit == 0 {
			return fmt.Sprintf("%d %s", n/u.unit, u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}

// profile begins profiles that stop writes into a folder; none where there is no folder.
func profile(folder string) (stop func() error, err error) {
	if folder == "" {
		return func() error { return nil }, nil
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	cpu, err := os.Create(filepath.Join(folder, "cpu.pprof"))
	if err != nil {
		return nil, err
	}
	runtime.SetMutexProfileFraction(10)
	runtime.SetBlockProfileRate(100_000)
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return nil, errors.Join(err, cpu.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		err := cpu.Close()
		for _, name := range []string{"mutex", "block", "allocs"} {
			f, e := os.Create(filepath.Join(folder, name+".pprof"))
			if e == nil {
				e = errors.Join(pprof.Lookup(name).WriteTo(f, 0), f.Close())
			}
			err = errors.Join(err, e)
		}
		return err
	}, nil
}
