package samples

import (
	"bytes"
	"encoding/binary"
	"io"
	"math"
)

// The recording is WAV: linear PCM, mono, 16 bits, 48 kHz (about eleven and a half minutes).
const (
	recordingSize = 64 << 20 // bytes, with the header
	recordingRate = 48_000
	wavHeader     = 44
	toneSteps     = 1024
)

// recording gives a file of exactly 64 MiB that is made while it is read, in constant memory.
func (d *desk) recording(name string) File {
	seed := d.chance("recording").Uint64()
	tone := new([toneSteps]int32)
	for i := range tone {
		tone[i] = int32(math.Round(9_000 * math.Sin(2*math.Pi*float64(i)/toneSteps)))
	}
	return File{
		Name: name, Role: roleAttachment, Format: formatWAV, Size: recordingSize,
		Open: func() io.ReadCloser {
			return io.NopCloser(io.MultiReader(newWAVHeader(), &speech{seed: seed, tone: tone}))
		},
	}
}

func newWAVHeader() io.Reader {
	h := make([]byte, 0, wavHeader)
	h = append(h, "RIFF"...)
	h = binary.LittleEndian.AppendUint32(h, recordingSize-8)
	h = append(h, "WAVEfmt "...)
	h = binary.LittleEndian.AppendUint32(h, 16)
	h = binary.LittleEndian.AppendUint16(h, 1) // linear PCM
	h = binary.LittleEndian.AppendUint16(h, 1) // one channel
	h = binary.LittleEndian.AppendUint32(h, recordingRate)
	h = binary.LittleEndian.AppendUint32(h, recordingRate*2)
	h = binary.LittleEndian.AppendUint16(h, 2)
	h = binary.LittleEndian.AppendUint16(h, 16)
	h = append(h, "data"...)
	h = binary.LittleEndian.AppendUint32(h, recordingSize-wavHeader)
	return bytes.NewReader(h)
}

// speech is a murmur: syllables of changing pitch over the noise of a room.
type speech struct {
	seed  uint64
	tone  *[toneSteps]int32
	next  uint64 // the sample to come
	high  byte   // the second half of a sample that was cut
	cut   bool
	phase uint32
	pitch uint32 // phase steps a sample, 16.16
	level int32  // 0 to 3
}

const (
	samplesInAll = (recordingSize - wavHeader) / 2
	syllable     = recordingRate / 5
)

// Read implements io.Reader.
func (s *speech) Read(p []byte) (int, error) {
	n := 0
	if s.cut && len(p) > 0 {
		p[0], s.cut, n = s.high, false, 1
	}
	for n < len(p) && s.next < samplesInAll {
		v := uint16(s.sample())
		p[n] = byte(v)
		if n+1 < len(p) {
			p[n+1] = byte(v >> 8)
		} else {
			s.high, s.cut = byte(v>>8), true
			return n + 1, nil
		}
		n += 2
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (s *speech) sample() int16 {
	if s.next%syllable == 0 {
		h := mix(s.seed ^ s.next)
		s.level = int32(h & 3)
		s.pitch = uint32((90 + h>>8%160) * toneSteps << 16 / recordingRate)
	}
	noise := int32(mix(s.seed+s.next)>>55) - 256
	s.next++
	s.phase += s.pitch
	first := s.tone[s.phase>>16%toneSteps]
	third := s.tone[s.phase>>16*3%toneSteps]
	return int16((first+third/3)*s.level/3 + noise)
}

// mix is the finalizer of SplitMix64: neighbouring arguments give unrelated results.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
