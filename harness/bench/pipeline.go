package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/marchesud/perenne/cmd/perenne/bench"
)

// The keys of the pipeline and what it does with each document: what a careful administrator would write.
const (
	prepare = `set -e
openssl ecparam -name prime256v1 -genkey -noout -out seal.key
openssl req -new -x509 -key seal.key -subj "/CN=Sigillo di prova" -days 30 -out seal.pem
openssl ecparam -name prime256v1 -genkey -noout -out tsa.key
openssl req -new -x509 -key tsa.key -subj "/CN=Marca di prova" -days 30 -addext "extendedKeyUsage=critical,timeStamping" -out tsa.pem
cat >tsa.cnf <<END
[tsa]
default_tsa = t
[t]
serial = serial
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
END
echo 01 >serial
mkdir store`
	each = `set -e
sha256sum "$1" >"$1.sha256"
openssl cms -sign -binary -in "$1" -signer seal.pem -inkey seal.key -outform DER -out "$1.p7s"
openssl ts -query -data "$1.p7s" -sha256 -cert -out "$1.tsq" 2>/dev/null
openssl ts -reply -config tsa.cnf -queryfile "$1.tsq" -signer tsa.pem -inkey tsa.key -out "$1.tsr" 2>/dev/null
cp "$1" "$1.sha256" "$1.p7s" "$1.tsr" store/
sync store/"$1" store/"$1.sha256" store/"$1.p7s" store/"$1.tsr" store`
)

// pipeline measures documents of 100 KB through shell pipelines, one and as many at once as there are processors, each
// with keys, serial numbers and store of its own, and in turn through the archive.
func (m *campaign) pipeline(ctx context.Context, work string) (r result, err error) {
	const n, rounds, times = 20, 3, 50
	var ours, one, parallel, ratio, ratioParallel []float64
	for round := range rounds {
		folder := filepath.Join(work, fmt.Sprint(round))
		a, err := pipelines(filepath.Join(folder, "one"), 1, n)
		if err != nil {
			return r, err
		}
		b, err := pipelines(filepath.Join(folder, "parallel"), runtime.NumCPU(), n)
		if err != nil {
			return r, err
		}
		var archive result
		if err := m.bench(ctx, "dir", folder, &archive, "--sizes", "100KB"); err != nil {
			return r, err
		}
		r.Program, r.System, r.Processors = archive.Program, archive.System, archive.Processors
		for _, w := range archive.Rows {
			if w.What != "ingest 100 KB" {
				continue
			}
			slices.SortFunc(w.Ours, func(a, b rate) int { return cmp.Compare(a.PerSecond, b.PerSecond) })
			c := w.Ours[len(w.Ours)/2].PerSecond
			ours, one, parallel = append(ours, c), append(one, a), append(parallel, b)
			ratio, ratioParallel = append(ratio, c/a), append(ratioParallel, c/b)
		}
	}
	w := row{What: "Perenne beside one pipeline", Value: bench.Median(ratio), Unit: "×", Note: fmt.Sprintf("%.4g/s beside %.4g/s, medians of %d rounds in turn", bench.Median(ours), bench.Median(one), rounds)}
	w.want(times, false)
	r.Rows = []row{w, {What: fmt.Sprintf("beside %d pipelines at once", runtime.NumCPU()), Value: bench.Median(ratioParallel), Unit: "×", Note: fmt.Sprintf("%.4g/s", bench.Median(parallel))}}
	return r, nil
}

// pipelines runs some pipelines at once, each over n documents.
func pipelines(folder string, at, n int) (float64, error) {
	folders := make([]string, at)
	for i := range folders {
		folders[i] = filepath.Join(folder, fmt.Sprintf("%d-%d", at, i))
		if err := lay(folders[i], n); err != nil {
			return 0, err
		}
	}
	start := time.Now()
	failed := make([]error, at)
	var running sync.WaitGroup
	for i, f := range folders {
		running.Go(func() {
			for d := range n {
				failed[i] = errors.Join(failed[i], bash(f, each, fmt.Sprintf("%d.pdf", d)))
			}
		})
	}
	running.Wait()
	return float64(at*n) / time.Since(start).Seconds(), errors.Join(failed...)
}

// lay makes the keys and n documents.
func lay(folder string, n int) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	if err := bash(folder, prepare); err != nil {
		return err
	}
	document := make([]byte, 100_000)
	_, _ = rand.Read(document)
	for i := range n {
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("%d.pdf", i)), document, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func bash(folder, script string, args ...string) error {
	cmd := exec.Command("bash", append([]string{"-c", script, "pipeline"}, args...)...)
	cmd.Dir = folder
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %.300s", err, out)
	}
	return nil
}
