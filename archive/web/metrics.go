package web

import "github.com/prometheus/client_golang/prometheus"

// metrics are the server's collectors. Labels come from closed sets only: route patterns and status classes.
type metrics struct {
	requests *prometheus.CounterVec
	inFlight prometheus.Gauge
}

func newMetrics() *metrics {
	return &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "perenne", Name: "http_requests_total", Help: "Requests by route and class of status."}, []string{"route", "class"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "perenne", Name: "http_requests_in_flight", Help: "Requests being served."}),
	}
}

func (m *metrics) count(route string, status int) {
	class := "5xx"
	if i := status/100 - 1; i >= 0 && i < 5 {
		class = [...]string{"1xx", "2xx", "3xx", "4xx", "5xx"}[i]
	}
	if c, err := m.requests.GetMetricWithLabelValues(route, class); err == nil {
		c.Inc()
	}
}
