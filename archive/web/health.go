package web

import (
	"net/http"

	"github.com/marchesud/perenne/archive"
)

// health answers /status: of the installation, and of the producers that the token is for.
func (x *exchange) health() error {
	if err := x.authenticate(); err != nil {
		return err
	}
	h := x.s.cfg.Archive.Status(x.r.Context())
	seen := []archive.ProducerHealth{}
	for _, p := range h.Producers {
		if x.token.sees(p.Code) {
			seen = append(seen, p)
		}
	}
	h.Producers = seen
	x.json(http.StatusOK, "application/json", h)
	return nil
}

// alive says that the process answers; starting it again would cure nothing that alive does not see.
func (x *exchange) alive() error {
	x.send(http.StatusOK, "text/plain; charset=utf-8", []byte("ok\n"))
	return nil
}

// ready says whether requests should be sent here: not while stopping, nor when every producer stands still.
func (x *exchange) ready() error {
	running := 0
	producers := x.s.cfg.Archive.Producers()
	for _, code := range producers {
		if _, err := x.s.cfg.Archive.Ledger(code); err == nil {
			running++
		}
	}
	if x.s.draining.Load() || running == 0 && len(producers) > 0 {
		x.Header().Set("Retry-After", "10")
		x.send(http.StatusServiceUnavailable, "text/plain; charset=utf-8", []byte("not ready\n"))
		return nil
	}
	x.send(http.StatusOK, "text/plain; charset=utf-8", []byte("ready\n"))
	return nil
}
