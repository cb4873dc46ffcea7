package web

import (
	"log/slog"
	"net/http"
	"time"
)

// log writes the line of this request. Nothing in it was chosen by the client but the method, of a closed set,
// and the producer, once a token was found good for it.
func (x *exchange) log(start time.Time) {
	x.s.cfg.Log.Info("request",
		slog.String("request", x.id),
		slog.String("method", knownMethod(x.r.Method)),
		slog.String("route", x.route),
		slog.Int("status", x.status),
		slog.Duration("duration", x.s.cfg.Now().Sub(start)),
		slog.Int64("bytes", x.bytes),
		slog.String("producer", x.producer),
	)
}

func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "other"
}
