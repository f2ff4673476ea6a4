"""From matrices to a response plot: a cart with an inverted pendulum, sampled at 50 Hz, its controller in one call."""

from entroflow import lqr

A = [[0, 1, 0, 0], [0, -0.1818, 2.6727, 0], [0, 0, 0, 1], [0, -0.4545, 31.1818, 0]]  # position, angle and their rates
B = [0, 1.8182, 0, 4.5455]  # force
Q, R = [[5000, 0, 0, 0], [0, 0, 0, 0], [0, 0, 100, 0], [0, 0, 0, 0]], 1
W = [[0, 0, 0, 0], [0, 1e-3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1e-3]]
controller = lqr.design(A, B, Q, R, temperature=0.1, noise_cov=W, continuous=True, dt=0.02)
print(f"K = {controller.gain.round(2)}, sizes of poles {abs(controller.poles).round(3)}", controller.cost)
controller.plot(x0=[0.2, 0, 0, 0]).savefig("response.png")
