package bench

import (
	"context"
	"fmt"
	"slices"
)

// Comparison is what rounds in turn have given.
type Comparison struct {
	Ours      []Rate `json:"ours"`
	Yardstick []Rate `json:"yardstick"`
}

// Compare lets two targets take turns, and first warms both up with a short round that does not count.
func Compare(ctx context.Context, l Load, rounds int, ours, yardstick Target, series *Series, progress func(done, total int64)) (Comparison, error) {
	var c Comparison
	warm := l
	warm.Duration, warm.Documents = l.Duration/5, int64(l.Clients)
	for n := range 2 * (rounds + 1) {
		progress(int64(n), int64(2*(rounds+1)))
		load, to, name, list := l, ours, "archive", &c.Ours
		if n < 2 {
			load = warm
		}
		if n%2 == n/2%2 { // A B, B A, A B …: neither always goes first
			to, name, list = yardstick, "yardstick", &c.Yardstick
		}
		rate, err := load.Round(ctx, to, series)
		if err != nil {
			return c, fmt.Errorf("%s: %w", name, err)
		}
		if n >= 2 {
			*list = append(*list, rate)
		}
	}
	return c, nil
}

// Ratio is the median of the ratios of the pairs.
func (c Comparison) Ratio() float64 {
	var ratios []float64
	for i := range min(len(c.Ours), len(c.Yardstick)) {
		ratios = append(ratios, c.Ours[i].PerSecond/c.Yardstick[i].PerSecond)
	}
	return Median(ratios)
}

// MedianRate is the median of speeds, and that of processor times.
func MedianRate(rates []Rate) Rate {
	var speeds, times []float64
	for _, r := range rates {
		speeds, times = append(speeds, r.PerSecond), append(times, r.Processor)
	}
	return Rate{Median(speeds), Median(times)}
}

// Median is 0 for no values.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}
