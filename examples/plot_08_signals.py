"""
Waveforms of a heartbeat
========================

Windows of a recording, as they come from an electrocardiogram, an electroencephalogram or a
microphone: rows of a table, one per window. The atoms are waveforms.
"""

import matplotlib.pyplot as plt
import numpy as np
import pywt

import shoal

signal = pywt.data.ecg().astype(float)  # 1024 samples
windows = np.lib.stride_tricks.sliding_window_view(signal, 64)
windows = windows - windows.mean(axis=1, keepdims=True)

model = shoal.DictionaryAutoencoder(16, 2, random_state=0).fit(windows)

# %%

figure, every = plt.subplots(2, 8, figsize=(11, 3), layout="constrained", sharey=True)
for axes, atom in zip(every.flat, model.components_, strict=True):
    axes.plot(atom)
    axes.set_axis_off()

# %%
# Two atoms per window rebuild the recording; the windows that cover a sample are averaged.

rebuilt = model.transform(windows, method="omp") @ model.components_
total, covered = np.zeros_like(signal), np.zeros_like(signal)
means = np.lib.stride_tricks.sliding_window_view(signal, 64).mean(axis=1)
for start, window in enumerate(rebuilt):
    total[start : start + 64] += window + means[start]
    covered[start : start + 64] += 1
figure, axes = plt.subplots(figsize=(11, 2.6), layout="constrained")
axes.plot(signal, label="recorded")
axes.plot(total / covered, label="rebuilt")
axes.legend(frameon=False)
