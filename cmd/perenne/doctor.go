package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/storage"
	"github.com/marchesud/perenne/storage/doctor"
)

func doctorCommand() *cli.Command {
	return command(&cli.Command{
		Name: "doctor", Usage: "put the store to the test: does it keep what the archive relies on?",
		Flags: []cli.Flag{dirFlag(), langFlag(), &cli.BoolFlag{Name: "json", Usage: "print the examination as JSON"}},
		Action: func(c *cli.Context) (err error) {
			in, err := here(c)
			if err != nil {
				return err
			}
			store, err := in.openStore(c.Context, in.config.Store)
			if err != nil {
				return err
			}
			if closer, ok := store.(io.Closer); ok {
				defer func() { err = errors.Join(err, closer.Close()) }()
			}
			l := lang(c)
			bar := newProgress(c.App.ErrWriter, l.T("esame", "examination"))
			ctx, cancel := context.WithTimeout(c.Context, doctorTime)
			defer cancel()
			report := doctor.Examine(ctx, store, doctor.Options{
				Now: time.Now, Unheld: in.config.Store.readBack() == 0, Progress: func(done, total int) { bar.objects(int64(done), int64(total)) },
			})
			bar.end()
			if err := c.Context.Err(); err != nil {
				return err
			}
			if c.Bool("json") {
				err = json.NewEncoder(c.App.Writer).Encode(examinationJSON(l, in.storeName(), report))
			} else {
				printExamination(c.App.Writer, l, in.storeName(), report)
			}
			return errors.Join(err, exitWith(examinationCode(report)))
		},
	}, `perenne doctor --dir p
perenne doctor --dir p --json`)
}

const (
	doctorTime = 2 * time.Minute  // for who asks and waits
	serveTime  = 45 * time.Second // for who wants to serve: a few seconds, 15 where each request takes 150 ms
)

// storeName says which store it is.
func (in *installation) storeName() string {
	if b := in.config.Store.S3; b != nil {
		return strings.TrimSuffix(b.URL, "/") + "/" + b.Bucket
	}
	return in.within(in.config.Store.Dir)
}

// examined says what an examination was of, so that one of another store, or of what another account may do there, or with
// other locks or encryption, counts for nothing.
func (in *installation) examined() string {
	if b := in.config.Store.S3; b != nil {
		return fmt.Sprintf("%s as %s, lock %s, sse %s %s", in.storeName(), b.AccessKey, b.Lock, b.SSE, b.KMSKey)
	}
	return in.storeName()
}

// examinationCode is the code of an examination.
func examinationCode(r doctor.Report) int {
	switch {
	case r.Good():
		return exitFine
	case len(r.Of(storage.Broken)) > 0:
		return exitWrong
	default:
		return exitUnknown
	}
}

// printExamination tells what was found, the good in a line each.
func printExamination(w io.Writer, l paper.Lang, name string, r doctor.Report) {
	fmt.Fprintf(w, l.T("store %s  protezione: %s\n", "store %s  protection: %s\n"), name, firstOf(r.Protection, l.T("ignota", "unknown")))
	in := func(t doctor.Text) string { return l.T(t.IT, t.EN) }
	for _, one := range r.Results {
		words := one.Words()
		fmt.Fprintf(w, "  %-15s  %-18s  %s\n", verdictOf(one, l), one.Name, in(words.Promise))
		also := func(label, text string) {
			if text != "" {
				fmt.Fprintf(w, "  %-15s  %s%s\n", "", label, text)
			}
		}
		if one.Seen != nil {
			also(l.T("visto: ", "seen: "), one.Seen.Error())
		}
		switch one.Verdict {
		case storage.Held:
		case storage.Noted:
			also("", in(words.Note))
		default:
			also(l.T("altrimenti: ", "otherwise: "), in(words.Meaning))
			also(l.T("rimedio: ", "remedy: "), in(words.Remedy))
		}
	}
	if r.Skipped > 0 {
		fmt.Fprintf(w, l.T("  %d prove non fatte: nello store non si può scrivere\n", "  %d probes were not run: the store cannot be written to\n"), r.Skipped)
	}
	fmt.Fprintln(w, conclusion(l, r))
}

func verdictOf(one doctor.Result, l paper.Lang) string {
	switch one.Verdict {
	case storage.Held:
		return l.T("mantenuta", "held")
	case storage.Noted:
		return l.T("da sapere", "to be known")
	case storage.Broken:
		return l.T("NON MANTENUTA", "BROKEN")
	default:
		return l.T("NON SI SA", "CANNOT TELL")
	}
}

// conclusion is the whole in a line.
func conclusion(l paper.Lang, r doctor.Report) string {
	broken, untold := names(r.Of(storage.Broken)), names(r.Of(storage.Untold))
	switch {
	case broken != "":
		return l.T("non idoneo: ", "not fit: ") + broken
	case !r.Good():
		return l.T("non si può dire se è idoneo: ", "cannot tell whether it is fit: ") + untold
	case len(r.Of(storage.Noted)) > 0:
		return l.T("idoneo; da sapere: ", "fit; to be known: ") + names(r.Of(storage.Noted))
	default:
		return l.T("idoneo", "fit")
	}
}

func names(rs []doctor.Result) string {
	var list []string
	for _, r := range rs {
		list = append(list, r.Name)
	}
	return strings.Join(list, ", ")
}

type jsonResult struct {
	Name    string          `json:"name"`
	Verdict storage.Verdict `json:"verdict"`
	Promise string          `json:"promise"`
	Seen    string          `json:"seen,omitempty"`
	Note    string          `json:"note,omitempty"`
	Meaning string          `json:"meaning,omitempty"`
	Remedy  string          `json:"remedy,omitempty"`
}

type jsonExamination struct {
	Store      string          `json:"store"`
	Protection string          `json:"protection"`
	Fit        bool            `json:"fit"`
	Verdict    storage.Verdict `json:"verdict"`
	Skipped    int             `json:"skipped"`
	Results    []jsonResult    `json:"results"`
}

// examinationJSON is what printExamination prints, for programs.
func examinationJSON(l paper.Lang, name string, r doctor.Report) jsonExamination {
	in := func(t doctor.Text) string { return l.T(t.IT, t.EN) }
	e := jsonExamination{Store: name, Protection: r.Protection, Fit: r.Good(), Verdict: r.Verdict(), Skipped: r.Skipped}
	for _, one := range r.Results {
		words := one.Words()
		j := jsonResult{Name: one.Name, Verdict: one.Verdict, Promise: in(words.Promise)}
		if one.Seen != nil {
			j.Seen = one.Seen.Error()
		}
		switch one.Verdict {
		case storage.Held:
		case storage.Noted:
			j.Note = in(words.Note)
		default:
			j.Meaning, j.Remedy = in(words.Meaning), in(words.Remedy)
		}
		e.Results = append(e.Results, j)
	}
	return e
}

// storeError says that a store is not fit to keep an archive.
type storeError struct{ said }

// examineFirst puts the store to the test before anything is served from it, and returns why not. A store that was
// found fit within a day, by this version of the program, is asked only a few things.
func (in *installation) examineFirst(ctx context.Context, store storage.Store, state string, log *slog.Logger) error {
	fit := readFitness(state)
	// Another account or lock has everything tried anew; that the store was fit once counts where only room is wanting.
	same := fit.known && fit.Store == in.examined()
	fit.known = fit.known && strings.HasPrefix(fit.Store+" as ", in.storeName()+" as ")
	quick := same && fit.Version == version && time.Since(fit.Time).Abs() < fitFor
	ctx, cancel := context.WithTimeout(ctx, serveTime)
	defer cancel()
	report := doctor.Examine(ctx, store, doctor.Options{Now: time.Now, Quick: quick, Unheld: in.config.Store.readBack() == 0})
	for _, one := range report.Of(storage.Noted) {
		level := slog.LevelInfo
		if one.Name == "durability-unheld" {
			level = slog.LevelWarn
		}
		log.Log(ctx, level, "store: to be known", slog.String("promise", one.Name), slog.Any("seen", one.Seen))
	}
	switch {
	case report.Good() && quick:
		return nil
	case report.Good():
		return writeFitness(state, fitness{Store: in.examined(), Version: version, Time: time.Now()})
	case fit.known && onlyFull(report):
		log.Error("store is full: nothing is accepted until there is room", slog.Any("seen", report.Of(storage.Broken)[0].Seen))
		return nil
	}
	if err := os.Remove(filepath.Join(state, fitnessFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return refusal(in, report)
}

// onlyFull reports whether want of room is all that was found. What is kept can still be read.
func onlyFull(r doctor.Report) bool {
	broken := r.Of(storage.Broken)
	for _, one := range broken {
		if !errors.Is(one.Seen, storage.ErrFull) {
			return false
		}
	}
	return len(broken) > 0 && len(r.Of(storage.Untold)) == 0
}

// refusal names what keeps the store from being used.
func refusal(in *installation, r doctor.Report) error {
	var it, en strings.Builder
	broken := r.Of(storage.Broken)
	for _, one := range append(broken, r.Of(storage.Untold)...) {
		words := one.Words()
		fmt.Fprintf(&it, "\n  %s: %s\n    visto: %v\n    rimedio: %s", one.Name, words.Promise.IT, one.Seen, words.Remedy.IT)
		fmt.Fprintf(&en, "\n  %s: %s\n    seen: %v\n    remedy: %s", one.Name, words.Promise.EN, one.Seen, words.Remedy.EN)
	}
	more := "perenne doctor --dir " + quote(in.root)
	if len(broken) == 0 {
		return laterIn("non si è potuto provare che lo store mantiene ciò su cui l'archivio si regge: non si avvia nulla%[1]s\nTutto l'esame: %[3]s",
			"it could not be tried whether the store keeps what the archive relies on: nothing is started%[2]s\nThe whole examination: %[3]s", it.String(), en.String(), more)
	}
	return &storeError{both("lo store non mantiene ciò su cui l'archivio si regge: non si avvia nulla%[1]s\nTutto l'esame: %[3]s",
		"the store does not keep what the archive relies on: nothing is started%[2]s\nThe whole examination: %[3]s", []any{it.String(), en.String(), more})}
}

const (
	// fitnessFile in the state says which store was found fit, when and by which program. Deleted, the next start
	// examines in full.
	fitnessFile = "store-fit"
	fitFor      = 24 * time.Hour
)

type fitness struct {
	Store   string    `json:"store"`
	Version string    `json:"version"`
	Time    time.Time `json:"time"`

	known bool
}

// readFitness returns what is not known as such: whatever cannot be read counts for nothing.
func readFitness(state string) fitness {
	var f fitness
	text, err := os.ReadFile(filepath.Join(state, fitnessFile))
	f.known = err == nil && json.Unmarshal(text, &f) == nil
	return f
}

func writeFitness(state string, f fitness) error {
	text, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(state, fitnessFile), append(text, '\n'), 0o644)
}
