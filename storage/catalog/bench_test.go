package catalog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// These fill a catalog and ask it while it is warm. They measure whole runs: -benchtime 1x.
//
//	go test -run - -bench Catalog/100k -benchtime 1x ./storage/catalog
func BenchmarkCatalog(b *testing.B) {
	for _, size := range []struct {
		name string
		n    int64
	}{{"100k", 100_000}, {"1M", 1_000_000}} {
		b.Run(size.name, func(b *testing.B) {
			for b.Loop() {
				measure(b, size.n)
			}
		})
	}
}

func measure(b *testing.B, n int64) {
	dir := filepath.Join(b.TempDir(), "catalog")
	c, err := Open(context.Background(), Options{Dir: dir, Now: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	stop := watchMemory(b)
	var spent time.Duration
	for at := int64(0); at < n; at += 1000 {
		ch := Change{Put: manyMade(montesole, at, at+1000)}
		start := time.Now()
		apply(b, c, montesole, at/1000, ch)
		spent += time.Since(start)
	}
	b.ReportMetric(float64(n)/spent.Seconds(), "applied/s")
	start := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	if err := c.Wait(ctx); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(time.Since(start).Seconds(), "words-behind-s")
	stop("filling")
	runtime.GC()
	stop = watchMemory(b)
	for name, q := range map[string]func(i int64) Query{
		"word":    func(i int64) Query { return Query{Words: words1[i%8]} },
		"3words":  func(i int64) Query { return Query{Words: words1[i%8] + " " + words2[i%10] + " " + words3[i%13]} },
		"rare":    func(i int64) Query { return Query{Words: strings.Fields(made(montesole, i*37%n).Subject)[5]} },
		"number":  func(i int64) Query { return Query{Number: fmt.Sprint(i * 37 % n), Register: "DETE"} },
		"year":    func(i int64) Query { return Query{Register: "DETE", Year: 2016 + int(i%10)} },
		"type":    func(i int64) Query { return Query{Type: types[i%5]} },
		"dates":   func(i int64) Query { return Query{From: "2019-01-01", To: fmt.Sprintf("2019-%02d-01", 2+i%10)} },
		"newest":  func(i int64) Query { return Query{} },
		"word+to": func(i int64) Query { return Query{Words: words3[i%13], To: "2018-05-05", Type: types[i%5]} },
	} {
		b.ReportMetric(p99(b, c, q), "ms-p99-"+name)
	}
	stop("asking")
	b.ReportMetric(float64(c.Size())/float64(n), "B/package")
	start = time.Now()
	if err := c.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(time.Since(start).Seconds(), "close-s")
	start = time.Now()
	if err := Check(dir); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(time.Since(start).Seconds(), "check-s")
	start = time.Now()
	if c, err = Open(context.Background(), Options{Dir: dir}); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(time.Since(start).Seconds(), "open-s")
	if rebuilt, why := c.Rebuilt(); rebuilt {
		b.Error(why)
	}
	c.Close()
}

// p99 of 400 searches, in milliseconds.
func p99(b *testing.B, c *Catalog, q func(i int64) Query) float64 {
	var took []time.Duration
	for i := range int64(400) {
		query := q(i)
		query.Producer = montesole
		start := time.Now()
		if _, err := c.Search(context.Background(), query); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return float64(took[len(took)*99/100].Microseconds()) / 1000
}

// watchMemory looks, until stopped, at the most that the process holds, of its own and with mapped files.
func watchMemory(b *testing.B) (stop func(when string)) {
	quit, done := make(chan struct{}), make(chan struct{})
	var own, all float64
	go func() {
		defer close(done)
		for {
			o, f := memory(b)
			own, all = max(own, o), max(all, o+f)
			select {
			case <-quit:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return func(when string) {
		close(quit)
		<-done
		b.ReportMetric(own, "MiB-own-"+when)
		b.ReportMetric(all, "MiB-rss-"+when)
	}
}

func memory(b *testing.B) (own, file float64) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Log(err)
	}
	for _, line := range strings.Split(string(status), "\n") {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			fmt.Sscan(rest, &own)
		}
		if rest, ok := strings.CutPrefix(line, "RssFile:"); ok {
			fmt.Sscan(rest, &file)
		}
	}
	return own / 1024, file / 1024
}
