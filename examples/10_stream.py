"""
A recording while it runs
=========================

A player stands for an amplifier: it plays twelve seconds of EEG in real time. We
receive the samples, estimate their sources as they come, and draw the cortex every
three seconds. Without ``mne_lsl`` (extra ``stream``), pieces of the recording take the
player's place.
"""

# sphinx_gallery_thumbnail_number = 2

# %%
# What is known beforehand
# ------------------------
# A simulated recording with spikes of one patch, the template head, and the noise. From
# these, the operator is made once. The recording is longer than what we receive, as the
# player would start again at its end.
import time

import matplotlib.pyplot as plt
import mne
import numpy as np

import mne_deepsif

mne.set_log_level("warning")
montage = mne.channels.make_standard_montage("biosemi64")
info = mne.create_info(montage.ch_names, 250.0, "eeg").set_montage(montage)
fwd = mne_deepsif.make_template_forward(info)
parcels = mne_deepsif.make_template_parcels()
place = [0.050, -0.030, -0.015]  # MNI coordinates (m)
seed = np.linalg.norm(parcels.centers - place, axis=1).argmin()
raw, _, truth = mne_deepsif.simulate_raw(
    fwd, info, seeds=[seed], n_spikes=16, snr=5.0, duration=20.0, random_state=0
)
operator = mne_deepsif.make_deepsif_operator(raw.info, fwd, truth.noise_cov)

# %%
# The stream
# ----------
# It keeps every second sample of all vertices. A sample is final after this many
# seconds at most; ``preview`` has the newest ones at once.
stream = mne_deepsif.DeepSIFStream(operator, decim=2)
print(stream, f"final after {stream.delay:.2f} s")


# %%
# Where the samples come from
# ---------------------------
# Each step of the generator pushes what is new, and yields what has become final.
def receive(player, source):
    """Push what arrives from the lab streaming layer, for twelve seconds."""
    end = time.monotonic() + 12.0
    while time.monotonic() < end:
        time.sleep(0.1)
        yield stream.push_lsl(source)
    source.disconnect()
    player.stop()


def cut(size=25):
    """Push pieces of the recording, of twelve seconds."""
    for start in range(0, 3000, size):
        data, times = raw.get_data(start=start, stop=start + size, return_times=True)
        yield stream.push(data, times)


try:
    from mne_lsl.player import PlayerLSL
    from mne_lsl.stream import StreamLSL
except ImportError:
    pieces = cut()
else:
    player = PlayerLSL(raw, chunk_size=25, name="example").start()
    source = StreamLSL(bufsize=20, name="example").connect(acquisition_delay=0.02)
    pieces = receive(player, source)

# %%
# As it runs
# ----------
# Every three seconds, we draw the latest second at its peak. It may still change a
# little. What has become final is kept for the sources of the right temporal lobe.
label = parcels.to_labels()[seed]
rows = np.concatenate([stream.vertices[0], stream.vertices[1] + 10242])
rows = np.flatnonzero(np.isin(rows, label.vertices + 10242 * (label.hemi == "rh")))
kept, drawn = [], 0.0
for final in pieces:
    kept.append((final.times, final.data[rows].mean(axis=0)))
    for event in final.events:
        print(event)
    latest = stream.preview()
    if len(latest.times) and latest.times[-1] > drawn + 3.0:
        drawn = latest.times[-1]
        mne_deepsif.plot_estimate(latest.to_stc(), title="The latest second")
final = stream.finish()
kept.append((final.times, final.data[rows].mean(axis=0)))

# %%
# What is left
# ------------
# The final estimate, here the mean of one parcel's vertices, equals that of
# :func:`mne_deepsif.apply_deepsif_raw` for all that was received.
times, course = (np.concatenate(parts) for parts in zip(*kept))
figure, ax = plt.subplots(figsize=(8, 2.5), layout="constrained")
ax.plot(times - times[0], 1e9 * course)
ax.set(xlabel="Time (s)", ylabel="Moment (nAm)", title="Spikes of one parcel")
