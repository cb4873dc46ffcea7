package catalog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestConcurrentUseAndClose(t *testing.T) {
	c := openNew(t)
	producers := []string{montesole, colli, "c_x903"}
	var wg sync.WaitGroup
	for _, p := range producers {
		wg.Go(func() {
			for n := int64(0); n < 40; n++ {
				if n == 20 && p == colli {
					if err := c.Reset(p); err != nil {
						t.Error(err)
					}
				}
				if err := c.Apply(p, Change{Put: manyMade(p, n*20, n*20+20)}, State{Commit: n}); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for i := range 60 {
				page, err := c.Search(context.Background(), Query{Producer: p, Words: words2[i%10]})
				if err != nil {
					t.Error(err)
				}
				for _, r := range page.Records {
					if r != made(p, r.Index) {
						t.Errorf("%s: got %+v", p, r)
					}
				}
				_, _, err = c.ByID(p, made(p, int64(i)).ID)
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i, p := range producers {
		if got, want := c.Count(p), []int64{800, 400, 800}[i]; got != want {
			t.Errorf("%s: got %d, want %d", p, got, want)
		}
	}
	for range 4 {
		wg.Go(func() {
			for {
				if _, err := c.Search(context.Background(), Query{Producer: colli, Words: "lavori"}); err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Errorf("got %v, want ErrClosed", err)
					}
					return
				}
			}
		})
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if err := c.Wait(context.Background()); err == nil {
		if err := Check(c.o.Dir); err != nil {
			t.Error(err)
		}
	}
}

func TestWordsIndexThatBreaksWhileOpenIsBegunAnew(t *testing.T) {
	c := openNew(t)
	apply(t, c, montesole, 0, Change{Put: manyMade(montesole, 0, 3000)})
	wait(t, c)
	q := Query{Producer: montesole, Words: "lavori", Limit: 1000}
	want := searched(t, c, q)
	files, err := filepath.Glob(filepath.Join(c.o.Dir, wordsName, "*.zap"))
	if err != nil || len(files) == 0 {
		t.Fatalf("got segments %v %v", files, err)
	}
	for _, f := range files {
		if err := os.Truncate(f, 0); err != nil { // what is mapped now faults
			t.Fatal(err)
		}
	}
	if p := searched(t, c, q); p.Behind != 3000 || len(p.Records) != 0 {
		t.Errorf("got %d records, %d behind; want none, 3000", len(p.Records), p.Behind)
	}
	wait(t, c)
	if got := searched(t, c, q); fmt.Sprint(got) != fmt.Sprint(want) || len(got.Records) == 0 {
		t.Errorf("got %d records, want %d", len(got.Records), len(want.Records))
	}
	if renewed, _ := c.WordsRebuilt(); !renewed {
		t.Error("the index was not begun anew")
	}
}
