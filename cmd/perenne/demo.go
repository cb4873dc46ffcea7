package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/archive/web"
	"github.com/marchesud/perenne/cmd/perenne/samples"
	"github.com/marchesud/perenne/policies"
	"github.com/marchesud/perenne/signing/evidence"
)

func demoCommand() *cli.Command {
	return command(&cli.Command{
		Name: "demo", Usage: "see the whole thing work, in a folder of its own, in half a minute",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Value: "perenne-demo", Usage: "folder to make"}, langFlag(),
			&cli.BoolFlag{Name: "fresh", Usage: "remove the folder of an earlier demo first"},
			&cli.BoolFlag{Name: "keep", Usage: "go on serving at the end, until Ctrl-C"},
		},
		Action: demo,
	}, `perenne demo
perenne demo --dir /tmp/d --keep
perenne demo --fresh`)
}

// demoMarker is the file that says that a folder was made by a demo, and may be removed by one.
const demoMarker = ".perenne-demo"

// tour is one demo.
type tour struct {
	out   io.Writer
	lang  paper.Lang
	dir   string
	in    *installation
	start time.Time
	step  int

	marker  *os.File
	daemon  *exec.Cmd
	session *session
	units   []samples.Unit
	ids     map[string][]string // producer → packages, in order of submission
	objects map[string]string   // package → key in the store
	first   *paper.Receipt
}

func demo(c *cli.Context) (err error) {
	d := &tour{out: c.App.Writer, lang: lang(c), dir: c.String("dir"), start: time.Now(), ids: map[string][]string{}, objects: map[string]string{}}
	if err := d.clear(c.Bool("fresh")); err != nil {
		return err
	}
	d.title()
	runtime.LockOSThread() // for endWithUs
	defer func() { err = errors.Join(err, d.stopDaemon(), d.marker.Close()) }()
	for _, step := range []func(context.Context) error{
		d.install, d.startDaemon, d.submitFirst, d.submitAll, d.refuse, d.retry, d.search, d.retrieve, d.audit, d.damage, d.verify,
	} {
		if err := step(c.Context); err != nil {
			return err
		}
	}
	d.farewell()
	if c.Bool("keep") {
		return d.keep(c.Context)
	}
	return nil
}

// clear refuses a folder that is there, or removes it when it is a demo's and that was asked for.
func (d *tour) clear(fresh bool) error {
	entries, err := os.ReadDir(d.dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(d.dir, demoMarker)); err != nil {
		return usageIn("%s esiste e non è di una dimostrazione: sceglierne un'altra con --dir", "%s exists and is not a demo's: choose another with --dir", d.dir)
	}
	if !fresh {
		return usageIn("%s esiste già: --fresh la rifà, --dir ne sceglie un'altra", "%s exists already: --fresh makes it anew, --dir chooses another", d.dir)
	}
	for _, lock := range []string{filepath.Join(d.dir, demoMarker), filepath.Join(d.dir, "state", "lock")} {
		held, err := lockHeld(lock)
		if err != nil {
			return err
		}
		if held {
			return usageIn("%s è in servizio: fermare prima la dimostrazione che vi gira (Ctrl-C), o scegliere un'altra cartella con --dir",
				"%s is being served: first stop the demo that runs there (Ctrl-C), or choose another folder with --dir", d.dir)
		}
	}
	return os.RemoveAll(d.dir)
}

func (d *tour) title() {
	fmt.Fprintf(d.out, "\n  PERENNE  %s\n\n", d.lang.T("due enti inventati, documenti inventati, un archivio vero", "two bodies and documents that do not exist, an archive that does"))
}

// say prints one step of the tour.
func (d *tour) say(what, text string) {
	d.step++
	fmt.Fprintf(d.out, " %2d  %-18s %s  (%.1f s)\n", d.step, what, text, time.Since(d.start).Seconds())
}

func (d *tour) also(text string) { fmt.Fprintf(d.out, "     %-18s %s\n", "", text) }

func (d *tour) install(context.Context) error {
	now := time.Now()
	var err error
	d.in, err = makeInstallation(d.dir, Config{
		Installation: "dimostrazione.perenne", Listen: "127.0.0.1:0", Store: StoreConfig{Dir: "store", Immutable: "off"},
	}, bucketSecrets{}, now)
	if err != nil {
		return err
	}
	if err := d.mark(); err != nil {
		return err
	}
	if err := os.MkdirAll(d.in.path("papers"), 0o755); err != nil {
		return err
	}
	for _, p := range []struct{ code, name, tax string }{
		{"c_x901", "Comune di Montesole", "00000000901"}, {"ucolli_x902", "Unione dei Colli", "00000000902"},
	} {
		deed := Deed{Text: "Atto di nomina dimostrativo n. 1/2026"}
		_, err := d.in.addProducer(Producer{
			Code: p.code, Name: p.name, TaxCode: p.tax, Policy: "comune", Manual: Deed{Text: "Manuale di conservazione dimostrativo, versione 1.0"},
			Responsible: Person{FirstName: "Persona", LastName: "Inventata", TaxCode: "NVNPSN80A01X901A", Appointment: deed, From: "2026-01-01"},
			Conservator: Body{Name: "Unione dei Colli", TaxCode: "00000000902", Appointment: deed, From: "2026-01-01"},
		})
		if err != nil {
			return err
		}
	}
	d.say(d.lang.T("installazione", "installation"), quote(d.dir)+d.lang.T("  chiavi, certificati, marca temporale locale (non qualificata)", "  keys, certificates, local timestamp authority (not qualified)"))
	return nil
}

// mark leaves the marker, and holds a lock on it for as long as the tour runs.
func (d *tour) mark() (err error) {
	if d.marker, err = os.Create(d.in.path(demoMarker)); err != nil {
		return err
	}
	if _, err := d.marker.WriteString("perenne demo\n"); err != nil {
		return err
	}
	return unix.Flock(int(d.marker.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}

// startDaemon starts the real daemon, a process of its own.
func (d *tour) startDaemon(ctx context.Context) error {
	self, err := exec.LookPath(os.Args[0])
	if err != nil {
		return err
	}
	log, err := os.Create(d.in.path("daemon.log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	d.daemon = exec.Command(self, "serve", "--dir", d.in.root)
	d.daemon.Stdout, d.daemon.Stderr = log, log
	endWithUs(d.daemon)
	if err := d.daemon.Start(); err != nil {
		d.daemon = nil
		return fmt.Errorf("start the daemon: %w", err)
	}
	if d.session, err = d.in.sessionFor(string(d.lang)); err != nil {
		return err
	}
	if err := d.session.find(ctx); err != nil {
		return fmt.Errorf("%w; see %s", err, d.in.path("daemon.log"))
	}
	d.say("daemon", d.session.Base)
	return nil
}

func (d *tour) stopDaemon() error {
	if d.daemon == nil {
		return nil
	}
	cmd := d.daemon
	d.daemon = nil
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop the daemon: %w", err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("the daemon ended badly, see %s: %w", d.in.path("daemon.log"), err)
	}
	return nil
}

// send submits one unit over HTTP.
func (d *tour) send(ctx context.Context, u samples.Unit, sent func(int64)) (*paper.Receipt, error) {
	text, err := json.Marshal(describeUnit(u))
	if err != nil {
		return nil, err
	}
	var files []web.Upload
	for _, f := range u.Files {
		files = append(files, web.Upload{Name: f.Name, Size: f.Size, Open: func() (io.ReadCloser, error) { return f.Open(), nil }})
	}
	return d.session.Submit(ctx, u.Producer, text, files, func(n, _ int64) {
		if sent != nil {
			sent(n)
		}
	})
}

func describeUnit(u samples.Unit) policies.Description {
	p := policies.Description{
		Structure: u.Structure, Register: u.Register, Year: u.Year, Number: u.Number, Date: u.Date, Type: u.Type, Subject: u.Subject, Reserved: &u.Reserved, Class: u.Class,
	}
	for _, f := range u.Files {
		p.Files = append(p.Files, policies.FileDescription{Name: f.Name, Role: f.Role, Size: f.Size, Format: f.Format})
	}
	return p
}

func (d *tour) submitFirst(ctx context.Context) error {
	d.units = samples.All(1, time.Now())
	r, err := d.send(ctx, d.units[0], nil)
	if err != nil {
		return err
	}
	if r.Refused() {
		return fmt.Errorf("the first document was refused: %+v", r.Body.Checks)
	}
	d.first = r
	d.keepID(r)
	d.say(d.lang.T("prima ricevuta", "first receipt"), fmt.Sprintf("%s %s  id %s  %s", r.Body.Producer.Code, r.Body.Key, r.Body.Package, sealWord(r, d.lang)))
	return nil
}

func (d *tour) keepID(r *paper.Receipt) {
	d.ids[r.Body.Producer.Code] = append(d.ids[r.Body.Producer.Code], r.Body.Package)
	id := r.Body.Package
	d.objects[id] = filepath.Join(r.Body.Producer.Code, "packages", id[:2], id+".asice")
}

func (d *tour) submitAll(ctx context.Context) error {
	var total, done, files int64
	for _, u := range d.units[1:] {
		for _, f := range u.Files {
			total += f.Size
		}
	}
	bar := newProgress(os.Stderr, d.lang.T("     versamento", "     submitting"))
	for _, u := range d.units[1:] {
		r, err := d.send(ctx, u, func(n int64) { bar.bytes(done+n, total) })
		if err != nil {
			bar.end()
			return fmt.Errorf("submit %s %s: %w", u.Register, u.Number, err)
		}
		if r.Refused() {
			bar.end()
			return fmt.Errorf("%s %s was refused: %+v", u.Register, u.Number, r.Body.Checks)
		}
		for _, f := range u.Files {
			done += f.Size
			files++
		}
		d.keepID(r)
	}
	bar.end()
	d.say(d.lang.T("versamenti", "submissions"), fmt.Sprintf(d.lang.T("%d unità documentarie accettate, %d file, %s: determine, delibere, fatture, PEC, registro giornaliero, …", "%d document units accepted, %d files, %s: acts, invoices, certified mail, daily register, …"), len(d.units), files+int64(len(d.units[0].Files)), size(total)))
	return nil
}

// refuse submits what breaks five rules, and wants five reasons.
func (d *tour) refuse(ctx context.Context) error {
	r, err := d.send(ctx, samples.Bad(time.Now()), nil)
	if err != nil {
		return err
	}
	if !r.Refused() {
		return errors.New("a document that breaks five rules was accepted")
	}
	var reasons []policies.Finding
	for _, f := range r.Body.Checks {
		if f.Level == policies.Error {
			reasons = append(reasons, f)
		}
	}
	if len(reasons) != 5 {
		return fmt.Errorf("a document that breaks five rules got %d reasons: %+v", len(reasons), reasons)
	}
	d.say(d.lang.T("rifiuto", "refusal"), d.lang.T("un versamento che viola cinque regole riceve cinque motivi:", "a submission that breaks five rules gets five reasons:"))
	for _, f := range reasons {
		message, _ := f.In(string(d.lang))
		d.also(fmt.Sprintf("%-16s %s", f.Field, cut(message, 80)))
	}
	return nil
}

// cut shortens a text to n characters.
func cut(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

// retry submits the first document again, and wants the same receipt and no second package.
func (d *tour) retry(ctx context.Context) error {
	before, err := d.packages(ctx)
	if err != nil {
		return err
	}
	r, err := d.send(ctx, d.units[0], nil)
	if err != nil {
		return err
	}
	if !sameReceipt(r, d.first) {
		return errors.New("the same submission got another receipt")
	}
	after, err := d.packages(ctx)
	if err != nil {
		return err
	}
	if after != before || after != int64(len(d.units)) {
		return fmt.Errorf("there were %d packages before the retry and %d after it, of %d units", before, after, len(d.units))
	}
	d.say(d.lang.T("ripetizione", "retry"), fmt.Sprintf(d.lang.T("lo stesso versamento, di nuovo: stessa ricevuta, e i pacchetti restano %d", "the same submission again: the same receipt, and there are still %d packages"), after))
	return nil
}

// packages counts the packages of both bodies.
func (d *tour) packages(ctx context.Context) (n int64, err error) {
	h, err := d.session.Status(ctx)
	if err != nil {
		return 0, err
	}
	for _, p := range h.Producers {
		n += p.Packages
	}
	return n, nil
}

func (d *tour) search(ctx context.Context) error {
	const word = "lavoro"
	page, err := d.session.Search(ctx, web.SearchQuery{Producer: d.first.Body.Producer.Code, Words: word})
	if err != nil {
		return err
	}
	if len(page.Packages) == 0 {
		return fmt.Errorf("a search for %q finds nothing", word)
	}
	d.say(d.lang.T("ricerca", "search"), fmt.Sprintf(d.lang.T("\"%s\": %d documenti, il primo: %s", "\"%s\": %d documents, the first: %s"), word, len(page.Packages), cut(page.Packages[0].Subject, 60)))
	return nil
}

// retrieve fetches the first document with its proofs, and leaves the papers.
func (d *tour) retrieve(ctx context.Context) error {
	r, err := d.session.Receipt(ctx, d.first.Body.Producer.Code, d.first.Body.Package)
	if err != nil {
		return err
	}
	if r.Evidence.Seal != paper.Sealed {
		return errors.New("the first receipt is still without a seal")
	}
	d.first = r
	der, err := d.session.Evidence(ctx, r.Body.Producer.Code, r.Body.Package)
	if err != nil {
		return err
	}
	record, err := evidence.Parse(der)
	if err != nil {
		return err
	}
	text, err := r.Marshal()
	if err != nil {
		return err
	}
	xml, err := r.Body.XML()
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{"receipt.json": text, "rapporto-di-versamento.xml": xml, "evidence.ers": der, "seal.tst": record.Tokens()[0]} {
		if err := writeTo(d.in.path("papers", name), data); err != nil {
			return err
		}
	}
	f, err := os.Create(d.in.path("papers", "copy.zip"))
	if err != nil {
		return err
	}
	err = d.session.Retrieve(ctx, r.Body.Producer.Code, r.Body.Package, d.lang.T("dimostrazione", "demonstration"), f, func(_, _ int64) {})
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	d.say(d.lang.T("distribuzione", "retrieval"), d.lang.T("papers/copy.zip: il pacchetto, identico, con ricevuta ed evidence record", "papers/copy.zip: the package, byte for byte, with receipt and evidence record"))
	return nil
}

func (d *tour) audit(ctx context.Context) error {
	for _, code := range []string{"c_x901", "ucolli_x902"} {
		bar := newProgress(os.Stderr, d.lang.T("     verifica", "     audit"))
		answer, object, err := d.session.Audit(ctx, web.AuditRequest{Producer: code}, func(p web.AuditProgress) { bar.objects(p.Done, p.Total) })
		bar.end()
		if err != nil {
			return err
		}
		name := "report.asice"
		if code != "c_x901" {
			name = "report-" + code + ".asice"
		}
		if err := writeTo(d.in.path("papers", name), object); err != nil {
			return err
		}
		r := answer.Report
		if r.Verdict != paper.VerdictGood {
			return fmt.Errorf("the audit of %s says %s: %+v %v", code, r.Verdict, r.Findings, r.NotChecked)
		}
		text := fmt.Sprintf(d.lang.T("%s: integro; %d oggetti riletti (%s), %d righe di giornale, %d sigilli", "%s: good; %d objects read again (%s), %d ledger entries, %d seals"), code, r.Objects.Read, size(r.Objects.Bytes), r.Ledger.Size, r.Seals.Checked)
		if code == "c_x901" {
			d.say(d.lang.T("verifica", "audit"), text)
		} else {
			d.also(text)
		}
	}
	return nil
}

// verify checks the papers as a stranger does: the daemon is gone, and where the system lets us so is the network.
func (d *tour) verify(ctx context.Context) error {
	if err := d.stopDaemon(); err != nil {
		return err
	}
	papers, err := filepath.Glob(d.in.path("papers", "*"))
	if err != nil {
		return err
	}
	out, alone, err := d.verifyInChild(ctx, papers)
	if err != nil {
		return fmt.Errorf("the papers do not verify: %w\n%s", err, out)
	}
	how := d.lang.T("daemon fermo", "daemon stopped")
	if alone {
		how = d.lang.T("daemon fermo, processo senza rete", "daemon stopped, process without network")
	}
	valid := bytes.Count(out, []byte("\n"+d.lang.T("valido", "valid")+"  "))
	if valid != len(papers) {
		return fmt.Errorf("%d papers of %d are valid:\n%s", valid, len(papers), out)
	}
	d.say(d.lang.T("verifica offline", "offline check"), fmt.Sprintf(d.lang.T("%s: %d documenti su %d validi", "%s: %d papers of %d valid"), how, valid, len(papers)))
	return nil
}

// verifyInChild runs perenne verify in a process of its own, alone where that is allowed.
func (d *tour) verifyInChild(ctx context.Context, papers []string) (out []byte, alone bool, err error) {
	self, err := exec.LookPath(os.Args[0])
	if err != nil {
		return nil, false, err
	}
	args := append([]string{"verify", "--lang", string(d.lang), "--trust", d.in.path("trust")}, papers...)
	var text bytes.Buffer
	text.WriteString("\n")
	command := func() *exec.Cmd {
		cmd := exec.CommandContext(ctx, self, args...)
		cmd.Stdout, cmd.Stderr = &text, &text
		return cmd
	}
	cmd := command()
	if alone = withoutNetwork(cmd); alone {
		if err := cmd.Start(); err == nil {
			err = cmd.Wait()
			return text.Bytes(), true, err
		}
		cmd = command()
	}
	err = cmd.Run()
	return text.Bytes(), false, err
}

func (d *tour) farewell() {
	fmt.Fprintf(d.out, d.lang.T(`
     Da guardare:
       unzip -l %[1]s/papers/copy.zip
       perenne verify --trust %[1]s/trust %[1]s/papers/*
       %[1]s/store        gli oggetti, sotto le chiavi del bucket
     Per rifarla: --fresh. Per toglierla: rm -rf %[1]s

`, `
     To look at:
       unzip -l %[1]s/papers/copy.zip
       perenne verify --trust %[1]s/trust %[1]s/papers/*
       %[1]s/store        the objects, under the keys of the bucket
     To do it again: --fresh. To remove it: rm -rf %[1]s

`), quote(d.dir))
}

// keep goes on serving in the foreground.
func (d *tour) keep(ctx context.Context) error {
	if err := d.startDaemon(ctx); err != nil {
		return err
	}
	d.also(d.lang.T("in servizio, Ctrl-C per fermare; in un altro terminale: perenne status --dir ", "serving, Ctrl-C to stop; in another terminal: perenne status --dir ") + quote(d.dir))
	ended := make(chan error, 1)
	cmd := d.daemon
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		d.daemon = nil
		return fmt.Errorf("the daemon ended, see %s: %w", d.in.path("daemon.log"), err)
	case <-ctx.Done():
		d.daemon = nil
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		return <-ended
	}
}
